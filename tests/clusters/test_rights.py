"""The rights are those that the code uses: no more, and no less."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters import premises, rights
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.kinds import _known

PACKAGE = Path(rights.__file__).parents[1]
# A call of the client by its name, and the verbs it is.
VERBS = {
    "get": {"get"},
    "find": {"get"},
    "list": {"list"},
    "patch": {"patch"},
    "delete": {"delete"},
    "watch": {"list", "watch"},
    "feed": {"list", "watch"},
}
# Parts that never run as a guest in somebody's cluster.
ELSEWHERE = (
    "local/",
    "audit/",
    "kube/",
    "clusters/",
    "probe/agent/",
    "pgo/install",
)


def calls() -> Iterator[tuple[str, str, str]]:
    """Yield (where, verb, kind) for every call of the client that names its kind."""
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        if where.startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr not in VERBS or not owner.endswith(("kube", "_cluster", "watcher")):
                continue
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                for verb in VERBS[node.func.attr]:
                    yield f"{where}:{node.lineno}", verb, first.value


def granted() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for right in [*rights.RIGHTS, rights.NAMESPACE]:
        found.setdefault((right.group, right.resource), set()).update(right.verbs)
    return found


def test_every_call_of_the_client_is_granted() -> None:
    known, have = _known(), granted()
    seen = list(calls())
    assert len(seen) > 30
    lacking = []
    for where, verb, kind in seen:
        resource = known.get(kind)
        if resource is None:
            continue  # a kind of PGO's, which are all granted as a whole
        if verb not in have.get((resource.group, resource.plural), set()):
            lacking.append(f"{where}: {verb} {resource.plural}")
    assert not lacking, "grant it in clusters/rights.py, with its reason"


def test_no_right_is_a_wildcard_and_each_has_its_reason() -> None:
    for right in rights.RIGHTS:
        assert "*" not in {*right.verbs, right.resource, right.group}
        assert right.why


@pytest.mark.parametrize("file", ["whole-cluster", "one-namespace"])
def test_the_files_are_made_of_the_table(file: str) -> None:
    path = shipped.fixtures() / "rbac" / f"{file}.yaml"
    assert path.read_text("utf-8") == rights.rendered(file), (
        "make them anew: python -m pytest_pgo_eks.clusters.rights"
    )
    assert all(isinstance(one, dict) for one in yaml.safe_load_all(path.read_text("utf-8")))


def wanted(**options: Any) -> set[tuple[str, str, str]]:
    given: dict[str, Any] = {"own": "mine", "operator": "pgo", **options}
    return {
        (verb, right.resource, namespace)
        for right, namespace in rights.needed(**given)
        for verb in right.verbs
    }


def test_a_namespace_that_is_there_needs_none_to_be_made() -> None:
    assert ("create", "namespaces", "") in wanted()
    assert ("create", "namespaces", "") not in wanted(make_namespace=False)


def test_looking_asks_for_no_right_to_change_anything_there() -> None:
    asked = wanted(adopted="shop")
    changing = {"patch", "delete", "create"}
    there = {(v, r) for v, r, n in asked if n in ("shop", "pgo") and v in changing}
    assert there == {("create", "pods/exec")}
    assert ("create", "pods", "mine") in asked
    assert ("get", "secrets", "mine") not in asked


def test_disrupting_what_is_there_asks_for_the_same_as_one_of_our_own() -> None:
    asked = wanted(adopted="shop", disrupt=True)
    assert ("delete", "pods", "shop") in asked
    assert ("delete", "pods", "pgo") in asked


class Reviewed:
    """Answers access reviews; whatever is in ``denied`` is not allowed."""

    def __init__(self, denied: set[tuple[str, str]]) -> None:
        self.denied = denied

    def raw(self, method: str, path: str, body: Any) -> Any:
        assert (method, path.rpartition("/")[2]) == ("POST", "selfsubjectaccessreviews")
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        return {"status": {"allowed": (asked["verb"], resource) not in self.denied}}


def test_what_is_missing_is_named_with_verb_group_place_and_reason() -> None:
    kube = Reviewed({("create", "networkpolicies"), ("get", "pods/exec")})
    found = rights.missing(_as_kube(kube), rights.needed(own="mine", operator=None))
    assert list(map(str, found)) == [
        "get pods/exec in mine (to ask each PostgreSQL and Patroni)",
        "create networkpolicies.networking.k8s.io in mine (to prove that policies are enforced)",
    ]
    assert [one.right.capability for one in found] == [None, "network-policy"]


def _as_kube(fake: Any) -> Kube:
    kube: Kube = fake
    return kube


def test_everything_that_is_listed_at_the_end_may_be_listed() -> None:
    """What a guest lists before and after is no call with a literal kind, so it is checked here."""
    known, have = _known(), granted()
    kinds = [known[kind] for kind in premises._KINDS if kind in known]
    assert len(kinds) == len(premises._KINDS) - 1
    assert not [one.plural for one in kinds if "list" not in have[one.group, one.plural]]
