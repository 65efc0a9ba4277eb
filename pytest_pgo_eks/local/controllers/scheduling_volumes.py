"""What a pod's claims say about the nodes it may run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_pgo_eks.local.controllers.node_matching import NodeState, matches_node_selector
from pytest_pgo_eks.local.controllers.pods import claims_of
from pytest_pgo_eks.local.objects import Obj, annotations_of, meta

SELECTED_NODE = "volume.kubernetes.io/selected-node"
_FOREIGN = "node(s) didn't match PersistentVolume's node affinity"
_UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


@dataclass(frozen=True)
class PodVolumes:
    """A pod's claims, looked up once for one scheduling decision."""

    bound: tuple[tuple[Obj, Obj], ...]  # (claim, volume)
    waiting: tuple[tuple[Obj, Obj], ...]  # (claim, its class): bound when a node is chosen
    problem: str | None  # why no node at all will do

    @classmethod
    def of(
        cls,
        pod: Obj,
        claim: Callable[[str], Obj | None],
        volume: Callable[[str], Obj | None],
        storage_class: Callable[[str], Obj | None],
    ) -> PodVolumes:
        bound, waiting = [], []
        for name in claims_of(pod):
            found = claim(name)
            # The words after the full stop are the real scheduler's, doubled as it has them.
            if found is None:
                return cls((), (), f'persistentvolumeclaim "{name}" not found. not found')
            if meta(found).get("deletionTimestamp"):
                return cls((), (), f'persistentvolumeclaim "{name}" is being deleted. not found')
            if is_bound(found):
                backing = volume(found["spec"]["volumeName"])
                if backing is None:
                    missing = found["spec"]["volumeName"]
                    return cls((), (), f'persistentvolume "{missing}" not found. not found')
                bound.append((found, backing))
                continue
            made_by = storage_class(found["spec"].get("storageClassName") or "")
            if made_by is None or made_by.get("volumeBindingMode") != "WaitForFirstConsumer":
                return cls((), (), f"{_UNBOUND}. not found")
            waiting.append((found, made_by))
        return cls(tuple(bound), tuple(waiting), None)

    def refuse(self, state: NodeState) -> str | None:
        """Say why this node cannot have the volumes; None when it can."""
        if any(not volume_fits(volume, state.node) for _, volume in self.bound):
            return _FOREIGN
        for claim, made_by in self.waiting:
            chosen = annotations_of(claim).get(SELECTED_NODE)
            if chosen and chosen != state.name:
                return _FOREIGN
            if not _topology_allows(made_by, state):
                return "node(s) didn't find available persistent volumes to bind"
        return None


def is_bound(claim: Obj) -> bool:
    """Say whether the claim has its volume and both know it."""
    return (
        bool(claim["spec"].get("volumeName"))
        and (claim.get("status") or {}).get("phase") == "Bound"
    )


def volume_fits(volume: Obj, node: Obj) -> bool:
    """Say whether the node is one the volume can be used on."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or matches_node_selector(required["nodeSelectorTerms"], node)


def _topology_allows(storage_class: Obj, state: NodeState) -> bool:
    allowed = storage_class.get("allowedTopologies") or []
    return not allowed or any(
        all(
            state.labels.get(e["key"]) in e["values"]
            for e in term.get("matchLabelExpressions") or []
        )
        for term in allowed
    )
