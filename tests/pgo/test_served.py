"""What an older release cannot carry out is refused instead of being ignored by it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo import release_of
from pytest_pgo_eks.pgo.served import refuse_unserved

from .test_manifest import OWN


def manifest(version: str = "v1beta1", **spec: Any) -> dict[str, Any]:
    found = copy.deepcopy(OWN)
    found["apiVersion"] = f"postgres-operator.crunchydata.com/{version}"
    found["spec"] |= spec
    return found


@pytest.mark.parametrize(
    ("release", "given", "said"),
    [
        ("5.8.9", manifest("v1"), "apiVersion is v1, but PGO 5.8 here serves v1beta1"),
        ("5.7.9", manifest(postgresVersion=18), "PGO 5.7 runs 10 to 17"),
        ("6.0.3", manifest(postgresVersion=10), "PGO 6.0 runs 11 to 18"),
        (
            "5.7.9",
            manifest(config={"parameters": {"work_mem": "5MB"}}),
            "spec.config.parameters is unknown to PGO 5.7",
        ),
        (
            "5.7.9",
            manifest(authentication={"rules": [{"hba": "x"}]}),
            "spec.authentication is unknown to PGO 5.7",
        ),
    ],
)
def test_what_a_release_does_not_know_is_refused(
    release: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageProblem, match=said):
        refuse_unserved(given, "mine.yaml", release_of(release))


@pytest.mark.parametrize("release", ["5.7.9", "5.8.9-stand-in", "6.0.3"])
def test_the_suites_own_manifest_is_for_every_release(release: str) -> None:
    refuse_unserved(manifest(), "cluster.yaml", release_of(release))


def test_both_versions_of_the_resource_are_taken_where_they_are_served() -> None:
    for version in ("v1", "v1beta1"):
        refuse_unserved(manifest(version), "mine.yaml", release_of("6.0.3"))
    with pytest.raises(UsageProblem, match=r"serves v1$"):
        refuse_unserved(manifest(), "mine.yaml", release_of("6.1.0"), ("v1",))
