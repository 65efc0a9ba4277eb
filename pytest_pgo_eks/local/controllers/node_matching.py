"""Nodes as the scheduler sees them: what is on them, and which pods their labels and taints allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.pods import requests_of
from pytest_pgo_eks.local.controllers.quantities import quantity
from pytest_pgo_eks.local.objects import Obj, labels_of, matches

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
_NOT_READY = "node.kubernetes.io/not-ready"


@dataclass
class NodeState:
    """A node with the pods on it (those assumed there too)."""

    node: Obj
    pods: list[Obj] = field(default_factory=list)

    @property
    def name(self) -> str:
        name: str = self.node["metadata"]["name"]
        return name

    @property
    def labels(self) -> dict[str, str]:
        return labels_of(self.node)

    def used(self) -> dict[str, Decimal]:
        total: dict[str, Decimal] = {}
        for pod in self.pods:
            for resource, amount in requests_of(pod).items():
                total[resource] = total.get(resource, Decimal(0)) + amount
        return total

    def allocatable(self) -> dict[str, Decimal]:
        status = self.node.get("status") or {}
        found = status.get("allocatable") or status.get("capacity") or {}
        return {name: quantity(amount) for name, amount in found.items()}


def tolerates(pod: Obj, taint: Mapping[str, str]) -> bool:
    """Say whether one of the pod's tolerations covers the taint."""
    return any(toleration_covers(t, taint) for t in pod["spec"].get("tolerations") or [])


def toleration_covers(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    if not toleration.get("key"):
        return False
    return (toleration.get("value") or "") == (taint.get("value") or "")


def matches_node_selector(terms: Iterable[Obj], node: Obj) -> bool:
    """Apply a NodeSelector's terms (any of them; expressions and fields within one all)."""
    return any(matches_node_term(term, node) for term in terms)


def matches_node_term(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    name = {"metadata.name": node["metadata"]["name"]}
    return all(_matches_expression(e, labels_of(node)) for e in expressions) and all(
        _matches_expression(e, name) for e in fields
    )


def _matches_expression(expression: Obj, found: Mapping[str, str]) -> bool:
    operator = expression["operator"]
    if operator not in ("Gt", "Lt"):
        return matches({"matchExpressions": [expression]}, found)
    try:
        value, bound = int(found[expression["key"]]), int(expression["values"][0])
    except (KeyError, ValueError, IndexError):
        return False
    return value > bound if operator == "Gt" else value < bound


def matches_node(pod: Obj, node: Obj) -> bool:
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels_of(node).get(name) != value for name, value in selector.items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or matches_node_selector(required["nodeSelectorTerms"], node)


def untolerated(pod: Obj, node: Obj) -> Mapping[str, str] | None:
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(pod, taint):
            found: Mapping[str, str] = taint
            return found
    ready = condition_of(node, "Ready")
    taint = {"key": _NOT_READY, "effect": "NoSchedule"}
    # The taint comes a moment after the node: until then its condition counts.
    if (ready is None or ready["status"] != "True") and not tolerates(pod, taint):
        return taint
    return None
