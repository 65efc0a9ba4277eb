"""From nothing, or from wherever a killed run stopped, to three stacks that stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from pytest_pgo_eks.clusters.eks import deadman, templates
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.names import Names, moment, stamp
from pytest_pgo_eks.clusters.eks.reasons import usable_zones
from pytest_pgo_eks.clusters.eks.stacks import Order, Stack, StackFailed, Stacks
from pytest_pgo_eks.clusters.eks.state import Attempt, RunState, StateFile, first_state
from pytest_pgo_eks.clusters.eks.templates import TEMPLATE_TAG, Choice
from pytest_pgo_eks.clusters.eks.wanted import ZONES, Wanted
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Progress

#: What each layer is expected to take, and how long it is waited for, in seconds. Control planes were
#: seen to take 13 to 16 minutes in 21 regions.
EXPECTED_S = {"base": 960.0, "nodes": 240.0, "addons": 120.0}
_WITHIN_S = {"base": 3600.0, "nodes": 1800.0, "addons": 900.0}
_GONE_S = 2400.0
#: A creation that failed for a passing reason is tried again so often.
_AGAIN = 2


class Building:
    """Builds one run. What is to be done is written into ``file`` before AWS is asked to do it."""

    def __init__(self, aws: Aws, names: Names, file: StateFile, progress: Progress) -> None:
        self._aws = aws
        self._names = names
        self._file = file
        self._progress = progress
        self._stacks = Stacks(aws, names)
        self._state: RunState | None = None

    def build(self, wanted: Wanted, choice: Choice, commit: str | None = None) -> Mapping[str, str]:
        """Bring all three layers up; return the outputs of the base.

        :raises UsageProblem: the run cannot be gone on with, or something foreign is in the way.
        :raises ClusterProblem: it did not come up; what there is stands under the run's name.
        """
        state = self._begin(wanted, choice, commit)
        choice = Choice.from_json(state.choice)
        at = moment(state.expires)
        assert at is not None
        with self._progress.phase("a schedule in AWS that would remove the run"):
            deadman.arm(
                self._aws,
                self._names,
                state.tags,
                account=choice.account,
                runner=choice.runner,
                at=at,
            )
        base = self._base(wanted, choice)
        self._nodes(wanted, choice, base.outputs)
        self._layer("addons", templates.addons(self._names, wanted, base.outputs), wanted)
        return base.outputs

    def _begin(self, wanted: Wanted, choice: Choice, commit: str | None) -> RunState:
        """Return the state to go on from; a new one is on disk when this returns."""
        now = self._aws.clock.wall()
        state = self._file.read()
        if state is None:
            expires = now + timedelta(hours=wanted.hours)
            tags = self._names.tags(owner=choice.owner, created=now, expires=expires, commit=commit)
            state = first_state(self._names, choice.region, choice.account, expires, tags)
            shape = {"nodes": wanted.nodes, "gateways": wanted.gateways}
            state = replace(
                state, choice=choice.as_json(), shape=shape, estimate_usd=choice.estimate_usd
            )
            self._file.write(state)
        expires_at = moment(state.expires)
        if state.removing or state.removed:
            raise UsageProblem(
                f"--pgo-eks-run: the run {state.run} is being removed; sweep it, or choose another"
            )
        if state.region != choice.region or state.account != choice.account:
            raise UsageProblem(
                f"--pgo-eks-run: the run {state.run} is in {state.region} of account "
                f"{state.account}, not in {choice.region} of {choice.account}"
            )
        if expires_at is None or expires_at <= now:
            raise UsageProblem(
                f"--pgo-eks-run: the run {state.run} expired at {state.expires}, so AWS may be "
                "removing it; sweep it, or choose another"
            )
        self._state = state
        return state

    def _base(self, wanted: Wanted, choice: Choice) -> Stack:
        tried: set[tuple[str, ...]] = set()
        while True:
            tried.add(choice.zones)
            try:
                return self._layer(
                    "base",
                    templates.base(self._names, wanted, choice, self._now.tags),
                    wanted,
                )
            except StackFailed as failed:
                zones = self._other_zones(failed, wanted, choice)
                if zones is None or zones in tried:
                    raise
                self._progress.say(
                    f"EKS has no room in one of {', '.join(choice.zones)}: trying "
                    f"{', '.join(zones)}"
                )
                self._remove("base")
                choice = replace(choice, zones=zones)
                self._write(replace(self._now, choice=choice.as_json()))

    def _other_zones(
        self, failed: StackFailed, wanted: Wanted, choice: Choice
    ) -> tuple[str, ...] | None:
        """Return three zones that EKS offers instead, None where that is not the trouble."""
        if failed.kind != "zone" or wanted.zones is not None:
            return None
        offered = usable_zones(failed.causes[0].said)
        kept = [zone for zone in choice.zones if zone in offered]
        more = [zone for zone in offered if zone not in kept]
        found = tuple(sorted([*kept, *more][:ZONES]))
        return found if len(found) == ZONES else None

    def _nodes(self, wanted: Wanted, choice: Choice, outputs: Mapping[str, str]) -> Stack:
        """Bring nodes up, on the next instance type where one has no capacity.

        The control plane is left alone meanwhile.
        """
        latest = self._now.latest("nodes")
        types = list(choice.types)
        if latest is not None and latest.type in types and latest.gone is None:
            types = types[types.index(latest.type) :]
        for number, name in enumerate(types):
            parameters = templates.nodes(
                self._names, wanted, choice, self._now.tags, outputs=outputs, type_=name
            )
            try:
                return self._layer("nodes", parameters, wanted, type_=name)
            except StackFailed as failed:
                following = types[number + 1 : number + 2]
                if failed.kind != "capacity" or not following:
                    raise
                self._progress.say(
                    f"AWS has no capacity for {name} ({failed.causes[0].name}): "
                    f"trying {following[0]}"
                )
                self._remove("nodes")
        raise ClusterProblem("there is no instance type left to try")

    def _layer(
        self,
        layer: str,
        parameters: Mapping[str, str],
        wanted: Wanted,
        *,
        type_: str | None = None,
    ) -> Stack:
        """Bring one layer up; a passing trouble is tried again."""
        text = templates.body(layer)
        for attempt in range(_AGAIN + 1):
            with self._progress.phase(_TITLES[layer], expected_s=EXPECTED_S[layer]) as phase:
                self._stacks.say = phase.say
                try:
                    found, _ = self._stacks.ensure(
                        Order(
                            layer=layer,
                            body=text,
                            parameters=parameters,
                            tags={**self._now.tags, TEMPLATE_TAG: templates.fingerprint(text)},
                            token=self._token(layer),
                            within_s=_WITHIN_S[layer],
                            size=templates.size(layer, wanted),
                        ),
                        lambda: self._intend(layer, type_),
                    )
                except StackFailed as failed:
                    if failed.kind != "passing" or attempt == _AGAIN:
                        raise
                    self._progress.say(f"{failed}; trying again")
                else:
                    self._refuse_other_template(found, text)
                    self._write(self._now.noted(layer, id=found.id))
                    return found
            self._remove(layer)
        raise AssertionError("the last attempt returns or raises")

    def _refuse_other_template(self, found: Stack, text: str) -> None:
        made_of = found.tags.get(TEMPLATE_TAG)
        if made_of != templates.fingerprint(text):
            raise UsageProblem(
                f"--pgo-eks-run: stack {found.name} was made of another edition of the template; "
                f"remove the run {self._names.run}, or choose another"
            )

    def _token(self, layer: str) -> str:
        """Return a token that repeats for a call whose answer was lost, and for no other."""
        count = sum(each.layer == layer and each.gone is not None for each in self._now.attempts)
        return f"{self._names.cluster}-{layer}-{count + 1}"

    def _intend(self, layer: str, type_: str | None) -> None:
        latest = self._now.latest(layer)
        asked = stamp(self._aws.clock.wall())
        if latest is not None and latest.gone is None and latest.type == type_:
            return
        attempt = Attempt(layer, asked, self._token(layer), type=type_)
        self._write(self._now.asked(attempt))

    def _remove(self, layer: str) -> None:
        found = self._stacks.own(layer)
        if found is not None:
            with self._progress.phase(f"removing what came up of the {layer}") as phase:
                self._stacks.say = phase.say
                self._stacks.remove(found, within_s=_GONE_S)
        self._write(self._now.noted(layer, gone=stamp(self._aws.clock.wall())))

    @property
    def _now(self) -> RunState:
        assert self._state is not None
        return self._state

    def _write(self, state: RunState) -> None:
        self._file.write(state)
        self._state = state


_TITLES = {
    "base": "network and control plane come up",
    "nodes": "nodes come up",
    "addons": "addons come up",
}
