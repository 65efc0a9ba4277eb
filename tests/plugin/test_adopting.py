"""Judging what exists: what would disturb it is left out, and said so."""

from __future__ import annotations

import json

import pytest

from .castles import Project

WANTS_TO_WRITE = """
import pytest
from pytest_pgo_eks.errors import NotPermitted

def test_it_writes(pgo_cluster):
    raise NotPermitted("PATCH /x: namespace shop is only looked at in this run")

def test_it_looks(pgo_cluster):
    assert pgo_cluster.name == "castle"

@pytest.mark.disruptive
def test_it_disrupts(pgo_cluster):
    raise AssertionError("it must not even begin")
"""


@pytest.fixture
def project_with_tests(project: Project) -> Project:
    project.write("test_it.py", WANTS_TO_WRITE)
    return project


def verdicts(project: Project) -> dict[str, tuple[str, str]]:
    document = json.loads((project.path / "reports/latest/verdict.json").read_text("utf-8"))
    return {one["name"]: (one["verdict"], one["reason"] or "") for one in document["scenarios"]}


def test_what_disrupts_or_writes_is_skipped_with_its_reason(project_with_tests: Project) -> None:
    result = project_with_tests.run("--cluster=fake", "--pgo-adopt=shop/hippo", "test_it.py")
    result.assert_outcomes(passed=1, skipped=2)
    found = verdicts(project_with_tests)
    assert found["test_it_looks"][0] == "pass"
    assert found["test_it_writes"][0] == "skipped"
    assert "namespace shop is only looked at" in found["test_it_writes"][1]
    assert found["test_it_disrupts"][0] == "skipped"
    assert "disrupts shop/hippo" in found["test_it_disrupts"][1]
    assert "--pgo-allow-disruption" in found["test_it_disrupts"][1]


def test_disruption_that_is_allowed_begins(project_with_tests: Project) -> None:
    flags = ("--pgo-adopt=shop/hippo", "--pgo-allow-disruption")
    result = project_with_tests.run("--cluster=fake", *flags, "test_it.py::test_it_disrupts")
    assert "it must not even begin" in result.stdout.str()
