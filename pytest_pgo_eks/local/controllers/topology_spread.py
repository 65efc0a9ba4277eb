"""topologySpreadConstraints, counted for one scheduling decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pgo_eks.local.controllers.node_matching import (
    HOSTNAME,
    ZONE,
    NodeState,
    matches_node,
    untolerated,
)
from pytest_pgo_eks.local.controllers.pods import is_terminating
from pytest_pgo_eks.local.objects import Obj, labels_of, matches


@dataclass
class Spread:
    """One topologySpreadConstraint with the number of matching pods in each domain."""

    key: str
    max_skew: int
    hard: bool
    domains: dict[str, int]
    counts_itself: bool
    min_domains: int

    @classmethod
    def of(cls, constraint: Obj, pod: Obj, nodes: Sequence[NodeState]) -> Spread:
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
            if honours_affinity and not matches_node(pod, state.node):
                continue
            if honours_taints and untolerated(pod, state.node):
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


def default_spreading(pod: Obj, nodes: Sequence[NodeState]) -> list[Spread]:
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
        made.append(Spread(key, max_skew, False, domains, True, 1))
    return made
