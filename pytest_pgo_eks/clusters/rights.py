"""The rights that a run needs on a cluster that is not its own, as data, with the reason for each.

The table says what the harness calls and no more; ``fixtures/rbac`` is made of it (``python -m
pytest_pgo_eks.clusters.rights``), and a run asks for each right before it creates anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.kube import Kube

Scope = Literal["cluster", "own", "operator", "adopted"]
_PGO = "postgres-operator.crunchydata.com"
_ACCESS = "rbac.authorization.k8s.io"
_POLICIES = "networking.k8s.io"
_READ = ("get", "list", "watch")
_MAKE = ("get", "create", "patch", "delete")
_AT_ONCE = 12


@dataclass(frozen=True)
class Right:
    """Verbs on one resource (``pods/exec``). ``scope``: the whole cluster, the run's own namespace,
    the operator's, or that of an adopted PostgresCluster.

    ``capability`` is what is lost without it; a right without one is indispensable.
    """

    scope: Scope
    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    capability: str | None = None


@dataclass(frozen=True)
class Missing:
    """One verb that is not granted. ``namespace`` is empty for the whole cluster."""

    right: Right
    verb: str
    namespace: str

    def __str__(self) -> str:
        group = f".{self.right.group}" if self.right.group else ""
        name, slash, sub = self.right.resource.partition("/")
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {name}{group}{slash}{sub}{where} ({self.right.why})"


_LOOK = "to see the cluster under test and to explain a failure"


def _looks(scope: Scope) -> tuple[Right, ...]:
    """Return what looking at a PostgresCluster and its operator takes."""
    return (
        Right(scope, "", "pods", _READ, _LOOK),
        Right(scope, "", "pods/log", ("get",), "to look for panics"),
        # A WebSocket is opened by a GET; newer servers ask for "create" as well.
        Right(scope, "", "pods/exec", ("get", "create"), "to ask each PostgreSQL and Patroni"),
        Right(scope, "", "endpoints", _READ, "to see whom Patroni and Services lead to"),
        Right(scope, "", "services", ("get", "list"), _LOOK),
        Right(scope, "", "secrets", ("get", "list"), "to log in as applications do"),
        Right(scope, "", "configmaps", ("get", "list"), _LOOK),
        Right(scope, "", "events", ("list",), "to explain a failure"),
        Right(scope, "", "persistentvolumeclaims", _READ, _LOOK),
        Right(scope, "apps", "deployments", ("get", "list"), _LOOK),
        Right(scope, "apps", "statefulsets", ("list",), _LOOK),
        Right(scope, "batch", "jobs", ("list",), "to see backups"),
        Right(scope, "batch", "cronjobs", ("list",), "to see backups"),
        Right(scope, "policy", "poddisruptionbudgets", ("list",), _LOOK),
        Right(scope, "discovery.k8s.io", "endpointslices", _READ, "to see where Services lead"),
        Right(scope, _PGO, "postgresclusters", _READ, _LOOK),
    )


RIGHTS: tuple[Right, ...] = (
    Right("cluster", "", "nodes", ("get", "list"), "to know zones and what there is room for"),
    Right("cluster", "", "namespaces", ("get",), "to see whether a namespace is taken"),
    Right(
        "cluster", "storage.k8s.io", "storageclasses", ("get", "list"), "to know the default one"
    ),
    Right(
        "cluster",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        ("get",),
        "to know which PostgresCluster is served",
    ),
    Right(
        "cluster",
        "apps",
        "deployments",
        ("list",),
        "to find the operator, and any second one",
        "operator-search",
    ),
    Right(
        "cluster",
        "",
        "persistentvolumes",
        ("get", "list"),
        "to prove that no volume is left",
        "volume-audit",
    ),
    Right(
        "cluster",
        "snapshot.storage.k8s.io",
        "volumesnapshotclasses",
        ("list",),
        "to know whether volumes can be snapshotted",
        "volume-snapshots",
    ),
    Right("cluster", "", "nodes", ("patch",), "to cordon a node", "node-drain"),
    *_looks("own"),
    Right("own", "", "pods", ("create", "patch", "delete"), "to run the probe, and to kill pods"),
    Right("own", "", "pods/eviction", ("create",), "to drain a node", "node-drain"),
    Right("own", "", "serviceaccounts", (*_MAKE, "list"), "the probe has its own"),
    Right("own", _ACCESS, "roles", (*_MAKE, "list"), "the probe may watch pods"),
    Right("own", _ACCESS, "rolebindings", (*_MAKE, "list"), "the probe may watch pods"),
    Right("own", _POLICIES, "networkpolicies", ("list",), "to leave none behind"),
    Right("own", "", "secrets", ("delete",), "to take a certificate away"),
    Right(
        "own",
        _POLICIES,
        "networkpolicies",
        ("create", "delete"),
        "to prove that policies are enforced",
        "network-policy",
    ),
    Right("own", _PGO, "postgresclusters", ("create", "patch", "delete"), "the cluster under test"),
    *_looks("operator"),
    Right("operator", "", "pods", ("delete",), "to kill the operator"),
    Right("operator", "apps", "deployments", ("patch",), "to take the operator down"),
    Right("operator", "coordination.k8s.io", "leases", ("get",), "to see that it leads"),
    *_looks("adopted"),
)

# With these the run makes a namespace and removes it; without, an administrator has made it.
NAMESPACE = Right(
    "cluster", "", "namespaces", ("create", "delete"), "to have a namespace of its own"
)
# What an operator is made of; the server demands, too, that the run holds every right that it grants.
INSTALL: tuple[Right, ...] = (
    Right(
        "cluster",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        _MAKE,
        "--pgo-install brings PGO's",
    ),
    Right("cluster", "rbac.authorization.k8s.io", "clusterroles", _MAKE, "PGO's own rights"),
    Right("cluster", "rbac.authorization.k8s.io", "clusterrolebindings", _MAKE, "PGO's own rights"),
    Right("own", "apps", "deployments", _MAKE, "--pgo-install brings the operator"),
)
# An adopted cluster is looked at, unless disruption is allowed; then it takes what our own does.
_PROBE_ONLY = frozenset(
    {"pods", "pods/exec", "pods/log", "serviceaccounts", "networkpolicies", "events", "configmaps"}
)


def needed(
    *,
    own: str,
    operator: str | None,
    adopted: str | None = None,
    make_namespace: bool = True,
    disrupt: bool = False,
    install: bool = False,
) -> Iterator[tuple[Right, str]]:
    """Yield each right with the namespace it is needed in ("" for the whole cluster)."""
    if make_namespace:
        yield NAMESPACE, ""
    if install:
        yield from ((right, "" if right.scope == "cluster" else own) for right in INSTALL)
    for right in RIGHTS:
        places = {
            "cluster": ("",),
            "own": _of_our_own(right, own, adopted, disrupt=disrupt),
            "operator": (operator,) if adopted is None or disrupt or not _changes(right) else (),
            "adopted": (adopted,) if not disrupt else (),
        }
        yield from ((right, place) for place in places[right.scope] if place is not None)


def _of_our_own(right: Right, own: str, adopted: str | None, *, disrupt: bool) -> tuple[str, ...]:
    """Return where a right on the run's own namespace is needed, when a cluster elsewhere is judged."""
    if adopted is None:
        return (own,)
    for_the_probe = (own,) if right.resource in _PROBE_ONLY else ()
    return (adopted, *for_the_probe) if disrupt else for_the_probe


def _changes(right: Right) -> bool:
    """Whether a right is more than looking; a command in a pod is asked for with "create"."""
    return not set(right.verbs) <= {*_READ} and right.resource != "pods/exec"


def missing(kube: Kube, wanted: Iterable[tuple[Right, str]]) -> list[Missing]:
    """Ask for each verb by a SelfSubjectAccessReview; return those that are not granted.

    :raises ApiProblem: the server does not answer.
    """
    asked = [
        Missing(right, verb, namespace)
        for right, namespace in dict.fromkeys(wanted)
        for verb in right.verbs
    ]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rights") as pool:
        granted = list(pool.map(lambda one: _granted(kube, one), asked))
    return [one for one, yes in zip(asked, granted, strict=True) if not yes]


def _granted(kube: Kube, one: Missing) -> bool:
    resource, _, sub = one.right.resource.partition("/")
    attributes = {"verb": one.verb, "group": one.right.group, "resource": resource}
    if sub:
        attributes["subresource"] = sub
    if one.namespace:
        attributes["namespace"] = one.namespace
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = kube.raw("POST", path, review)
    return bool((answer.get("status") or {}).get("allowed"))


def rules(scopes: Sequence[Scope], *, namespaces: bool = False) -> list[dict[str, Any]]:
    """Return the rules of a Role or ClusterRole that grants everything of these scopes."""
    merged: dict[tuple[str, str], dict[str, None]] = {}
    for right in [*([NAMESPACE] if namespaces else []), *RIGHTS]:
        if right.scope in scopes:
            verbs = merged.setdefault((right.group, right.resource), {})
            verbs.update(dict.fromkeys(right.verbs))
    # Resources with the same verbs share a rule: the file is read by people.
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), verbs in merged.items():
        grouped.setdefault((group, tuple(verbs)), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs), resources in grouped.items()
    ]


_RBAC = "rbac.authorization.k8s.io"
RUNNER = ("pytest-pgo-eks-runner", "runner")
_FILES = {
    "whole-cluster": (
        "What a run needs that makes a namespace of its own for the cluster under test.",
        "kubectl apply -f whole-cluster.yaml",
    ),
    "one-namespace": (
        "What a run needs in a namespace that an administrator made; change both names to yours.",
        "kubectl apply -f one-namespace.yaml; pytest --pgo-namespace=pytest-pgo-eks",
    ),
}


def documents(file: str) -> list[dict[str, Any]]:
    """Return the objects of ``fixtures/rbac/FILE.yaml``."""
    place, account = RUNNER
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": place},
        },
    ]
    if file == "whole-cluster":
        everything = rules(("cluster", "own", "operator", "adopted"), namespaces=True)
        return made + _granted_by("ClusterRole", "pytest-pgo-eks", None, everything)
    own = "pytest-pgo-eks"
    made.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own}})
    made += _granted_by("ClusterRole", "pytest-pgo-eks-reader", None, rules(("cluster",)))
    made += _granted_by("Role", "pytest-pgo-eks", own, rules(("own",)))
    made += _granted_by("Role", "pytest-pgo-eks", "postgres-operator", rules(("operator",)))
    return made


def _granted_by(
    kind: str, name: str, namespace: str | None, granted: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    place, account = RUNNER
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    role = {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": meta, "rules": granted}
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": place}],
    }
    return [role, binding]


def rendered(file: str) -> str:
    """Return the text of ``fixtures/rbac/FILE.yaml``."""
    what, use = _FILES[file]
    head = f"# {what}\n# {use}\n# Made of the table in pytest_pgo_eks/clusters/rights.py.\n"
    return head + yaml.safe_dump_all(documents(file), sort_keys=False, width=100)


if __name__ == "__main__":
    for name in _FILES:
        (shipped.fixtures() / "rbac" / f"{name}.yaml").write_text(rendered(name), "utf-8")
