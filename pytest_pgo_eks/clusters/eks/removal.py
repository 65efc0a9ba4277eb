"""From whatever is there of a run to nothing, and the proof of it.

The order matters. What Kubernetes made in AWS goes while its controllers live; load balancers before
the network they stand in; addons, nodes, then the interfaces that the nodes' network plugin left,
because the cluster's own security group hangs on them and would keep the VPC; then the base. What
remains beside the stacks is found by tag. Every step copes with having been done before, so a removal
that was cut off is simply done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pytest_pgo_eks.clusters.eks.belongings import FINDERS, Thing, delete, find
from pytest_pgo_eks.clusters.eks.calls import Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import RUN_TAG, STATE_TAG, Names, stamp
from pytest_pgo_eks.clusters.eks.stacks import Stack, StackFailed, Stacks
from pytest_pgo_eks.clusters.eks.state import StateFile
from pytest_pgo_eks.errors import ClusterProblem, PgoEksError, UsageProblem
from pytest_pgo_eks.progress import Progress

_STACK_S = 2400.0
#: aws-k8s-tester, too, allows ten minutes for the plugin's interfaces to come free.
_FREE_S = 600.0
_REST_S = 900.0
_POLL_S = 15.0
#: A last audit event makes the control plane's log group anew after its stack is gone. Waited for in
#: every removal: a removal that was cut off does not know when the cluster went.
_LATE_LOGS_S = 60.0
_TRIES = 3
EXPECTED_S = {"base": 480.0, "nodes": 360.0, "addons": 60.0}

#: What may stand in the way of the network's deletion without being in a stack.
_OBSTACLES = (
    "load-balancer",
    "autoscaling-group",
    "instance",
    "network-interface",
    "security-group",
    "network-acl",
    "volume",
)
#: Last of all, when nothing is left that a schedule would have to remove.
_SWITCH = ("schedule-group", "role")
_REST = tuple(kind for kind in FINDERS if kind not in {"stack", *_SWITCH})

Step = Callable[[], None]


class Removal:
    """Removes one run. ``before`` is done first, while the nodes live; its trouble stops nothing."""

    def __init__(
        self,
        aws: Aws,
        names: Names,
        progress: Progress,
        *,
        file: StateFile | None = None,
        before: Step | None = None,
    ) -> None:
        self._aws = aws
        self._names = names
        self._progress = progress
        self._file = file
        self._before = before
        self._stacks = Stacks(aws, names)

    def remove(self) -> list[Thing]:
        """Remove everything; return what is left all the same, which is nothing but in trouble.

        :raises ClusterProblem: AWS cannot be asked any more, so nothing is proven.
        """
        self._note(removing=True)
        was_there = self._freeze()
        if self._before is not None and was_there:
            try:
                self._before()
            except PgoEksError as error:
                self._progress.say(f"what Kubernetes made stays for AWS to remove: {error}")
        self.clear(("load-balancer",), within_s=_FREE_S)
        self._layer("addons")
        self._layer("nodes")
        with self._progress.phase("what the nodes left in the network goes"):
            self.clear(("network-interface",), within_s=_FREE_S)
        self._layer("base")
        with self._progress.phase("what is left beside the stacks goes"):
            self._late_logs()
            self.clear(_REST, within_s=_REST_S)
            self.clear(_SWITCH, within_s=_FREE_S)
        left = find(self._aws, self._names)
        if not left:
            self._note(removed=stamp(self._aws.clock.wall()))
        return left

    def _freeze(self) -> bool:
        """Mark the cluster as being removed; say whether there is one."""
        found = self._aws.find("eks", "describe_cluster", name=self._names.cluster)
        if found is None or found["cluster"].get("tags", {}).get(RUN_TAG) != self._names.run:
            return False
        try:
            self._aws.call(
                "eks",
                "tag_resource",
                resourceArn=found["cluster"]["arn"],
                tags={STATE_TAG: "removing"},
            )
        except AwsRefused as refused:
            self._progress.say(f"the cluster could not be marked: {refused}")
        return True

    def _layer(self, layer: str) -> None:
        """Remove a layer's stack; what is in the way is cleared, at last it is forced."""
        for attempt in range(1, _TRIES + 1):
            try:
                found = self._stacks.own(layer)
            except UsageProblem as problem:
                self._progress.say(str(problem))
                return
            if found is None:
                self._note_gone(layer)
                return
            title = f"removing stack {found.name}"
            with self._progress.phase(title, expected_s=EXPECTED_S[layer]) as phase:
                self._stacks.say = phase.say
                try:
                    self._remove(found, force=attempt == _TRIES)
                except StackFailed as failed:
                    self._progress.say(f"{failed}; clearing what is in the way")
                else:
                    self._note_gone(layer)
                    return
            self.clear(_OBSTACLES, within_s=_FREE_S, spare=self._nodes_live(layer))

    def _nodes_live(self, layer: str) -> frozenset[str]:
        """Return the kinds that a layer below still needs: its nodes work while addons go."""
        if layer == "addons":
            return frozenset({"autoscaling-group", "instance", "network-interface", "volume",
                              "security-group"})  # fmt: skip
        return frozenset()

    def _remove(self, found: Stack, *, force: bool) -> None:
        self._stacks.remove(
            found, within_s=_STACK_S, force=force and found.status == "DELETE_FAILED"
        )

    def clear(
        self, kinds: Sequence[str], *, within_s: float, spare: Iterable[str] = ()
    ) -> list[Thing]:
        """Remove what is there of these kinds until nothing is, or time is up; return the rest.

        What is refused for being in use is asked for again: others of the list may hold it.
        """
        clock, spared = self._aws.clock, set(spare)
        wanted = [kind for kind in kinds if kind not in spared]
        ends = clock.now() + within_s
        while True:
            there = [t for t in find(self._aws, self._names, wanted) if self._removable(t)]
            if not there:
                return []
            refused = 0
            for thing in there:
                try:
                    delete(self._aws, thing)
                except AwsRefused:
                    refused += 1
            if clock.now() >= ends:
                return there
            if refused:
                clock.pause(_POLL_S)
            elif clock.now() + _POLL_S >= ends:
                return there
            else:
                clock.pause(_POLL_S / 5)

    def _removable(self, thing: Thing) -> bool:
        return thing.kind != "resource"

    def _late_logs(self) -> None:
        clock = self._aws.clock
        ends = clock.now() + _LATE_LOGS_S
        while clock.now() < ends:
            clock.pause(_POLL_S)
            self.clear(("log-group",), within_s=_POLL_S)

    def _note(self, *, removing: bool | None = None, removed: str | None = None) -> None:
        state = self._file.read() if self._file is not None else None
        if self._file is not None and state is not None:
            state = replace(state, removing=True if removing else state.removing)
            self._file.write(replace(state, removed=removed or state.removed))

    def _note_gone(self, layer: str) -> None:
        state = self._file.read() if self._file is not None else None
        latest = state.latest(layer) if state is not None else None
        if self._file is not None and state is not None and latest and latest.gone is None:
            self._file.write(state.noted(layer, gone=stamp(self._aws.clock.wall())))


def refuse_leftovers(left: Sequence[Thing], region: str) -> None:
    """Fail with what is left and the lines that remove it.

    :raises ClusterProblem: something is left.
    """
    if left:
        lines = "\n".join(f"  {thing}: {thing.removal(region)}" for thing in left)
        raise ClusterProblem(f"{len(left)} things are left in AWS and may cost:\n{lines}")
