"""What installs the operator, and what its CRD lets in."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator.crd import definition
from pytest_pgo_eks.local.operator.limits import not_played
from pytest_pgo_eks.local.operator.manifests import manifests
from pytest_pgo_eks.local.operator.releases import release

from .hippos import manifest


def schema(version: str = "v1beta1") -> Obj:
    versions = definition(release("6.0"))["spec"]["versions"]
    found: Obj = next(v for v in versions if v["name"] == version)["schema"]["openAPIV3Schema"]
    return closed(found)


def closed(given: Obj) -> Obj:
    """Refuse what the API server would prune: in a test an unknown field is a mistake."""
    found = copy.deepcopy(given)
    if found.get("properties") and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["properties"] = {n: closed(p) for n, p in found["properties"].items()}
        found["additionalProperties"] = False
    if isinstance(found.get("items"), dict):
        found["items"] = closed(found["items"])
    return found


def problems(obj: Obj, version: str = "v1beta1") -> list[str]:
    return [e.message for e in jsonschema.Draft202012Validator(schema(version)).iter_errors(obj)]


@pytest.mark.parametrize("name", ["cluster", "pattern"])
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_shipped_clusters_are_valid(name: str, version: str) -> None:
    assert problems(manifest(name), version) == []


def test_served_and_stored_versions() -> None:
    for name, served in (("6.0", ["v1", "v1beta1"]), ("5.8", ["v1beta1"])):
        versions = definition(release(name))["spec"]["versions"]
        assert [v["name"] for v in versions] == served
        assert [v["name"] for v in versions if v["storage"]] == ["v1beta1"]
        assert all(v["subresources"] == {"status": {}} for v in versions)


def change(path: str, value: Any) -> Obj:
    obj = manifest()
    place: Any = obj
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(parent, str) else place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return obj


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.postgresVersion", None),
        ("spec.postgresVersion", 10),
        ("spec.postgresVersion", 19),
        ("spec.instances", []),
        ("spec.instances.0.replicas", 0),
        ("spec.instances.0.dataVolumeClaimSpec", None),
        ("spec.instances.0.dataVolumeClaimSpec.accessModes", []),
        ("spec.instances.0.dataVolumeClaimSpec.resources.requests", {}),
        ("spec.instances.0.dataVolumeClaimSpec.resources.requests.storage", "much"),
        ("spec.instances.0.name", "Has_Capitals"),
        ("spec.patroni.leaderLeaseDurationSeconds", 2),
        ("spec.patroni.syncPeriodSeconds", 0),
        ("spec.port", 1023),
        ("spec.users.0.name", "Bad Name"),
        ("spec.users.0.options", "LOGIN; DROP TABLE x"),
        ("spec.users.0.options", "LOGIN -- x"),
        ("spec.users.0.password", {"type": "Guessable"}),
        ("spec.authentication", {"rules": [{"connection": "host", "method": "trust"}]}),
        ("spec.authentication", {"rules": [{"hba": "host all all all trust"}]}),
        ("spec.backups.pgbackrest.repos.0.name", "repo5"),
        ("spec.service", {"type": "ExternalName"}),
        ("spec.patroni.switchover", {"targetInstance": "x"}),
        ("spec.instanecs", [{}]),
    ],
)
def test_what_the_crd_refuses(path: str, value: Any) -> None:
    assert problems(change(path, value))


def test_v1_has_a_limit_of_sets() -> None:
    obj = manifest()
    obj["spec"]["instances"] = [obj["spec"]["instances"][0] | {"name": f"s{n}"} for n in range(17)]
    assert problems(obj, "v1beta1") == []
    assert problems(obj, "v1")


def test_every_schema_is_structural() -> None:
    """Each node names its type, or is int-or-string; otherwise an API server refuses the CRD."""

    def check(node: Obj, where: str) -> None:
        assert "type" in node or node.get("x-kubernetes-int-or-string"), where
        for name, below in (node.get("properties") or {}).items():
            check(below, f"{where}.{name}")
        for name in ("items", "additionalProperties"):
            if isinstance(node.get(name), dict):
                check(node[name], f"{where}.{name}")

    for version in definition(release("6.0"))["spec"]["versions"]:
        check(version["schema"]["openAPIV3Schema"], version["name"])


def test_the_operator_says_that_it_is_a_stand_in() -> None:
    *_, deployment = manifests("6.0", images={"POSTGRES_16": "mirror/postgres:16"})
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == "6.0-stand-in"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert env["PGO_RELEASE"] == "6.0"
    assert env["RELATED_IMAGE_POSTGRES_16"] == "mirror/postgres:16"
    assert container["image"] == "stand-in/operator:6.0"


def test_5_8_has_no_lease() -> None:
    *_, deployment = manifests("5.8")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "PGO_CONTROLLER_LEASE_NAME" not in {e["name"] for e in container["env"]}


def test_an_unknown_release_is_refused() -> None:
    with pytest.raises(ValueError, match=r"known: 5\.8, 6\.0"):
        manifests("4.7")


def test_what_is_not_played_is_found_wherever_it_is() -> None:
    spec = {
        "dataSource": {"volumes": {}},
        "monitoring": {},
        "backups": {
            "pgbackrest": {"repos": [{"name": "repo1"}, {"name": "repo2", "s3": {"x": 1}}]}
        },
        "instances": [{"volumes": {"temp": {}}}],
    }
    assert not_played(spec) == [
        "spec.backups.pgbackrest.repos[1].s3",
        "spec.dataSource",
        "spec.instances[0].volumes",
    ]
