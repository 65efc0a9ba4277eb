"""Where a pod may run and where it should: the scheduler's decision, without any I/O.

The rules, their order and their messages are those of the default scheduler's plugins
(https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.pods import is_terminating, requests_of
from pytest_pgo_eks.local.controllers.quantities import quantity
from pytest_pgo_eks.local.objects import Obj, labels_of, matches

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
_NOT_READY = "node.kubernetes.io/not-ready"
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
    return any(_matches_node_term(term, node) for term in terms)


def _matches_node_term(term: Obj, node: Obj) -> bool:
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

    def _spreading(self, nodes: Sequence[NodeState]) -> tuple[list[_Spread], list[_Spread]]:
        constraints = self.pod["spec"].get("topologySpreadConstraints") or []
        if constraints:
            made = [_Spread.of(c, self.pod, nodes) for c in constraints]
        else:
            made = _default_spreading(self.pod, nodes)
        return [s for s in made if s.hard], [s for s in made if not s.hard]


@dataclass
class _Spread:
    """One topologySpreadConstraint with the number of matching pods in each domain."""

    key: str
    max_skew: int
    hard: bool
    domains: dict[str, int]
    counts_itself: bool
    min_domains: int

    @classmethod
    def of(cls, constraint: Obj, pod: Obj, nodes: Sequence[NodeState]) -> _Spread:
        selector = dict(constraint.get("labelSelector") or {})
        same = {
            name: labels_of(pod)[name]
            for name in constraint.get("matchLabelKeys") or []
            if name in labels_of(pod)
        }
        if same:
            selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **same}
        key = constraint["topologyKey"]
        honours_affinity = constraint.get("nodeAffinityPolicy", "Honor") == "Honor"
        honours_taints = constraint.get("nodeTaintsPolicy", "Ignore") == "Honor"
        domains: dict[str, int] = {}
        for state in nodes:
            if key not in state.labels:
                continue
            if honours_affinity and not _matches_node(pod, state.node):
                continue
            if honours_taints and _untolerated(pod, state.node):
                continue
            domains[state.labels[key]] = domains.get(state.labels[key], 0) + sum(
                other["metadata"].get("namespace") == pod["metadata"].get("namespace")
                and not is_terminating(other)
                and matches(selector, labels_of(other))
                for other in state.pods
            )
        return cls(
            key=key,
            max_skew=constraint.get("maxSkew", 1),
            hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
            domains=domains,
            counts_itself=matches(selector, labels_of(pod)),
            min_domains=constraint.get("minDomains") or 1,
        )

    def refuses(self, value: str) -> bool:
        fewest = min(self.domains.values(), default=0)
        if len(self.domains) < self.min_domains:
            fewest = 0
        return self.domains.get(value, 0) + self.counts_itself - fewest > self.max_skew


def _default_spreading(pod: Obj, nodes: Sequence[NodeState]) -> list[_Spread]:
    """Spread what one controller made, as the scheduler's built-in default constraints do."""
    owners = [r["uid"] for r in pod["metadata"].get("ownerReferences") or [] if r.get("controller")]
    if not owners:
        return []
    made = []
    for key, max_skew in ((HOSTNAME, 3), (ZONE, 5)):
        domains: dict[str, int] = {}
        for state in nodes:
            if key in state.labels:
                value = state.labels[key]
                domains[value] = domains.get(value, 0) + sum(
                    any(r["uid"] in owners for r in other["metadata"].get("ownerReferences") or [])
                    for other in state.pods
                )
        made.append(_Spread(key, max_skew, False, domains, True, 1))
    return made


def _forbidden_terms(pod: Obj) -> list[Obj]:
    anti = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return list(anti.get("requiredDuringSchedulingIgnoredDuringExecution") or [])


def _matches_node(pod: Obj, node: Obj) -> bool:
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels_of(node).get(name) != value for name, value in selector.items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or matches_node_selector(required["nodeSelectorTerms"], node)


def _untolerated(pod: Obj, node: Obj) -> Mapping[str, str] | None:
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


def _refusals(pod: Obj, state: NodeState, volumes: VolumeCheck, terms: _Terms) -> list[str]:
    """Return why the node is refused, from the first rule that refuses it; empty: it fits."""
    node = state.node
    if node["spec"].get("unschedulable") and not tolerates(
        pod, {"key": _UNSCHEDULABLE, "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    taint = _untolerated(pod, node)
    if taint:
        value = f" {taint['value']}" if taint.get("value") else " "
        return [f"node(s) had untolerated taint {{{taint['key']}:{value}}}"]
    if not _matches_node(pod, node):
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
            if _matches_node_term(term["preference"], state.node)
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
