"""Who is cut off from whom: by the stand-in's own network, or by a helper pod where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.clusters.images import probe_image
from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults import network
from pytest_pgo_eks.faults.bench import Fault
from pytest_pgo_eks.faults.clock import ClockShifted
from pytest_pgo_eks.faults.node_pod import Helper
from pytest_pgo_eks.faults.routes import Peer, PodsCutOff
from pytest_pgo_eks.pgo import Instance, Observation
from pytest_pgo_eks.scenario import roles
from pytest_pgo_eks.scenario.stage import Stage

# Beyond any tolerance for unequal clocks, and well within the life of certificates and tokens.
_SHIFT_S = 600.0


def cut(
    stage: Stage,
    pods: Sequence[str],
    *,
    kind: str,
    peers: Sequence[Peer] | None = None,
    spare: Sequence[Peer] | None = None,
    direction: str = "both",
) -> Fault:
    """Return the fault that cuts pods off from everybody, from ``peers``, or from all but ``spare``."""
    if not stage.settings.allow_privileged:
        return network.pod_partitioned(
            stage.kube,
            stage.namespace,
            pods,
            kind=kind,
            peers=peers,
            spare=spare,
            direction=direction,
        )
    if direction != "both":
        raise Inconclusive("a helper pod cannot drop packets in one direction alone")
    return PodsCutOff(
        stage.kube, stage.namespace, pods, kind=kind, image=_image(stage), peers=peers, spare=spare
    )


def clock_shifted(stage: Stage, seen: Observation, one: Instance) -> Fault:
    """Return the fault that moves the clock of an instance's node, watched from another's."""
    others = [each for each in roles.replicas(seen) if each.node not in {None, one.node}]
    if one.node is None or not others:
        raise Inconclusive("there is no instance on another node to compare clocks with")
    helper = Helper(stage.kube, stage.namespace, one.node, _image(stage))
    return ClockShifted(
        stage.kube,
        helper,
        stage.postgres.server(one.pod),
        stage.postgres.server(others[0].pod),
        by_s=_SHIFT_S,
    )


def _image(stage: Stage) -> str:
    """The load agent's image has Python, which is all that a helper needs."""
    return probe_image(stage.settings, stand_in=stage.settings.provider == "local")
