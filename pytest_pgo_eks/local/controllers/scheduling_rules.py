"""Where a pod may run and where it should: the scheduler's decision, without any I/O.

The rules, their order and their messages are those of the default scheduler's plugins
(https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pytest_pgo_eks.local.controllers.node_matching import (
    NodeState,
    matches_node,
    matches_node_term,
    tolerates,
    untolerated,
)
from pytest_pgo_eks.local.controllers.pods import requests_of
from pytest_pgo_eks.local.controllers.topology_spread import Spread, default_spreading
from pytest_pgo_eks.local.objects import Obj, labels_of, matches

_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# Reasons for which removing other pods could help; all others are final for the node.
_CURABLE = (
    "Insufficient ",
    "Too many pods",
    "node(s) didn't match pod topology spread constraints",
    "node(s) didn't match pod anti-affinity rules",
    "node(s) didn't satisfy existing pods anti-affinity rules",
    "node(s) didn't have free ports for the requested pod ports",
)


@dataclass(frozen=True)
class Decision:
    """The node chosen, or None and why not."""

    node: str | None
    message: str = ""


VolumeCheck = Callable[[NodeState], str | None]


def decide(
    pod: Obj,
    nodes: Sequence[NodeState],
    volumes: VolumeCheck,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
) -> Decision:
    """Choose the node for a pod.

    ``volumes`` says why a node cannot have the pod's volumes (None: it can). ``namespaces`` maps
    names to labels, for affinity terms with a namespaceSelector.
    """
    if not nodes:
        return Decision(None, "no nodes available to schedule pods")
    terms = _Terms(pod, nodes, namespaces or {})
    refused: Counter[str] = Counter()
    curable = 0
    fitting = []
    for state in nodes:
        reasons = _refusals(pod, state, volumes, terms)
        if not reasons:
            fitting.append(state)
        refused.update(reasons)
        curable += bool(reasons) and all(r.startswith(_CURABLE) for r in reasons)
    if not fitting:
        return Decision(None, _explain(refused, len(nodes), curable))
    scores = _scores(pod, fitting, terms)
    best = min(fitting, key=lambda s: (-scores[s.name], len(s.pods), s.name))
    return Decision(best.name)


class _Terms:
    """The pod's spreading and affinity rules, counted over all nodes once."""

    def __init__(
        self, pod: Obj, nodes: Sequence[NodeState], namespaces: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.pod = pod
        self.namespaces = namespaces
        affinity = pod["spec"].get("affinity") or {}
        self.affinity = affinity.get("podAffinity") or {}
        self.anti_affinity = affinity.get("podAntiAffinity") or {}
        self.counts: dict[int, Counter[str]] = {}
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        self.required = list(self.affinity.get(required) or [])
        self.forbidden = list(self.anti_affinity.get(required) or [])
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        self.preferred = [
            (t["podAffinityTerm"], t["weight"]) for t in self.affinity.get(preferred) or []
        ] + [(t["podAffinityTerm"], -t["weight"]) for t in self.anti_affinity.get(preferred) or []]
        for term in [*self.required, *self.forbidden, *(term for term, _ in self.preferred)]:
            self.counts[id(term)] = self._count(term, nodes)
        # (topology key, value) where a pod already there refuses this one.
        self.refusing = {
            (term["topologyKey"], state.labels[term["topologyKey"]])
            for state in nodes
            for other in state.pods
            for term in _forbidden_terms(other)
            if term["topologyKey"] in state.labels
            and self.covers(term, pod, other["metadata"].get("namespace", ""))
        }
        self.hard, self.soft = self._spreading(nodes)

    def covers(self, term: Obj, candidate: Obj, home: str) -> bool:
        """Say whether an affinity term of a pod in namespace ``home`` selects the candidate."""
        namespace = candidate["metadata"].get("namespace", "")
        names = term.get("namespaces") or []
        selector = term.get("namespaceSelector")
        if selector is not None:
            inside = namespace in names or matches(selector, self.namespaces.get(namespace, {}))
        else:
            inside = namespace in (names or [home])
        return inside and matches(term.get("labelSelector"), labels_of(candidate))

    def _count(self, term: Obj, nodes: Sequence[NodeState]) -> Counter[str]:
        home = self.pod["metadata"].get("namespace", "")
        found: Counter[str] = Counter()
        for state in nodes:
            value = state.labels.get(term["topologyKey"])
            if value is not None:
                found[value] += sum(self.covers(term, other, home) for other in state.pods)
        return found

    def _spreading(self, nodes: Sequence[NodeState]) -> tuple[list[Spread], list[Spread]]:
        constraints = self.pod["spec"].get("topologySpreadConstraints") or []
        if constraints:
            made = [Spread.of(c, self.pod, nodes) for c in constraints]
        else:
            made = default_spreading(self.pod, nodes)
        return [s for s in made if s.hard], [s for s in made if not s.hard]


def _forbidden_terms(pod: Obj) -> list[Obj]:
    anti = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return list(anti.get("requiredDuringSchedulingIgnoredDuringExecution") or [])


def _refusals(pod: Obj, state: NodeState, volumes: VolumeCheck, terms: _Terms) -> list[str]:
    """Return why the node is refused, from the first rule that refuses it; empty: it fits."""
    node = state.node
    if node["spec"].get("unschedulable") and not tolerates(
        pod, {"key": _UNSCHEDULABLE, "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    taint = untolerated(pod, node)
    if taint:
        value = f" {taint['value']}" if taint.get("value") else " "
        return [f"node(s) had untolerated taint {{{taint['key']}:{value}}}"]
    if not matches_node(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if _port_conflict(pod, state):
        return ["node(s) didn't have free ports for the requested pod ports"]
    short = _shortage(pod, state)
    if short:
        return short
    reason = volumes(state)
    if reason:
        return [reason]
    for spread in terms.hard:
        if spread.key not in state.labels:
            what = "node(s) didn't match pod topology spread constraints (missing required label)"
            return [what]
        if spread.refuses(state.labels[spread.key]):
            return ["node(s) didn't match pod topology spread constraints"]
    return _affinity_refusals(pod, state, terms)


def _affinity_refusals(pod: Obj, state: NodeState, terms: _Terms) -> list[str]:
    home = pod["metadata"].get("namespace", "")
    for term in terms.required:
        counts = terms.counts[id(term)]
        # The first pod of a group may go anywhere, else nobody could ever start.
        first = not any(counts.values()) and terms.covers(term, pod, home)
        if term["topologyKey"] not in state.labels or not (
            counts[state.labels[term["topologyKey"]]] or first
        ):
            return ["node(s) didn't match pod affinity rules"]
    for term in terms.forbidden:
        value = state.labels.get(term["topologyKey"])
        if value is not None and terms.counts[id(term)][value]:
            return ["node(s) didn't match pod anti-affinity rules"]
    if any((key, value) in terms.refusing for key, value in state.labels.items()):
        return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    return []


def _shortage(pod: Obj, state: NodeState) -> list[str]:
    allocatable, used = state.allocatable(), state.used()
    reasons = []
    if "pods" in allocatable and len(state.pods) + 1 > allocatable["pods"]:
        reasons.append("Too many pods")
    for resource, amount in sorted(requests_of(pod).items()):
        if amount and used.get(resource, 0) + amount > allocatable.get(resource, 0):
            reasons.append(f"Insufficient {resource}")
    return reasons


def _port_conflict(pod: Obj, state: NodeState) -> bool:
    wanted = _host_ports(pod)
    return bool(wanted) and any(wanted & _host_ports(other) for other in state.pods)


def _host_ports(pod: Obj) -> set[tuple[str, int]]:
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in pod["spec"].get("containers") or []
        for port in container.get("ports") or []
        if port.get("hostPort")
    }


def _scores(pod: Obj, fitting: Sequence[NodeState], terms: _Terms) -> dict[str, float]:
    """Add up the default plugins' scores (0 to 100 each) with their default weights."""
    total = {state.name: 0.0 for state in fitting}
    for weight, raw, fewest_best in (
        (3, _disliked_taints(pod, fitting), True),
        (2, _node_preference(pod, fitting), False),
        (2, _crowding(fitting, terms), True),
        (2, _pod_preference(fitting, terms), False),
    ):
        low, high = min(raw.values()), max(raw.values())
        if high == low:
            continue
        for name, value in raw.items():
            share = (value - low) / (high - low)
            total[name] += weight * 100 * (1 - share if fewest_best else share)
    for state in fitting:
        total[state.name] += _free_share(pod, state)
    return total


def _disliked_taints(pod: Obj, fitting: Sequence[NodeState]) -> dict[str, float]:
    return {
        state.name: sum(
            taint["effect"] == "PreferNoSchedule" and not tolerates(pod, taint)
            for taint in state.node["spec"].get("taints") or []
        )
        for state in fitting
    }


def _node_preference(pod: Obj, fitting: Sequence[NodeState]) -> dict[str, float]:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return {
        state.name: sum(
            term["weight"]
            for term in preferred
            if matches_node_term(term["preference"], state.node)
        )
        for state in fitting
    }


def _crowding(fitting: Sequence[NodeState], terms: _Terms) -> dict[str, float]:
    return {
        state.name: sum(
            spread.domains.get(state.labels.get(spread.key, ""), 0) for spread in terms.soft
        )
        for state in fitting
    }


def _pod_preference(fitting: Sequence[NodeState], terms: _Terms) -> dict[str, float]:
    return {
        state.name: sum(
            weight * terms.counts[id(term)][state.labels.get(term["topologyKey"], "")]
            for term, weight in terms.preferred
        )
        for state in fitting
    }


def _free_share(pod: Obj, state: NodeState) -> float:
    allocatable, used, wanted = state.allocatable(), state.used(), requests_of(pod)
    shares = [
        float(1 - (used.get(name, Decimal(0)) + wanted.get(name, Decimal(0))) / allocatable[name])
        for name in ("cpu", "memory")
        if allocatable.get(name)
    ]
    return 100 * sum(shares) / len(shares) if shares else 0.0


def _explain(refused: Counter[str], nodes: int, curable: int) -> str:
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in refused.items()))
    cures = []
    if curable:
        cures.append(f"{curable} No preemption victims found for incoming pod")
    if nodes - curable:
        cures.append(f"{nodes - curable} Preemption is not helpful for scheduling")
    return (
        f"0/{nodes} nodes are available: {reasons}. no new claims to deallocate, "
        f"preemption: 0/{nodes} nodes are available: {', '.join(cures)}."
    )
