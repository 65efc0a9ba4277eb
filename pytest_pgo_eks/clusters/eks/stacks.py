"""One stack brought to where it should be, from wherever it is.

The states and what each asks for (all of CloudFormation's are told apart, none counted as good that
is not): absent is created; in progress is waited for; CREATE_COMPLETE is done; a failed or rolled
back one is a :class:`StackFailed` with its first cause, which the caller may answer by removing and
trying something else; one that was updated by somebody is refused, as is one that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.clusters.eks.calls import Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import RUN_TAG, Names, tag_list, tag_map
from pytest_pgo_eks.clusters.eks.reasons import Cause, causes
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem

POLL_S = 10.0
_CAPABILITIES = ["CAPABILITY_IAM"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stack:
    """A stack as DescribeStacks shows it."""

    id: str
    name: str
    status: str
    reason: str
    outputs: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def running(self) -> bool:
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"


@dataclass(frozen=True)
class Order:
    """What is to be created: a template's text, parameters, tags, and what it is expected to take.

    ``token`` makes a repeated call harmless. ``size`` is how many resources are expected.
    """

    layer: str
    body: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    token: str
    within_s: float
    size: int = 0


class StackFailed(ClusterProblem):
    """A stack did not come up, or did not go; ``cause`` is the first thing that failed."""

    def __init__(self, message: str, found: tuple[Cause, ...]) -> None:
        super().__init__(message)
        self.causes = found

    @property
    def kind(self) -> str:
        return self.causes[0].kind if self.causes else "other"


class Stacks:
    """The stacks of one run. ``say`` is told how far the one at work has come."""

    def __init__(self, aws: Aws, names: Names, say: Say = lambda _text: None) -> None:
        self._aws = aws
        self._names = names
        self.say = say

    def look(self, name_or_id: str) -> Stack | None:
        """Return a stack, None where there is none (by name) or it is deleted (by id)."""
        answer = self._aws.find("cloudformation", "describe_stacks", StackName=name_or_id)
        if answer is None or not answer["Stacks"]:
            return None
        found = answer["Stacks"][0]
        if found["StackStatus"] == "DELETE_COMPLETE":
            return None
        return Stack(
            found["StackId"],
            found["StackName"],
            found["StackStatus"],
            found.get("StackStatusReason", ""),
            {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", ())},
            tag_map(found.get("Tags", ())),
        )

    def own(self, layer: str) -> Stack | None:
        """Return the run's stack of a layer.

        :raises UsageProblem: a stack of that name is there and carries no tag of this run.
        """
        found = self.look(self._names.stack(layer))
        if found is not None and found.tags.get(RUN_TAG) != self._names.run:
            raise UsageProblem(
                f"there is a stack {found.name} in {self._aws.region} that is not this run's "
                f"(its tag {RUN_TAG} is {found.tags.get(RUN_TAG)!r}); nothing of it was touched: "
                "choose another name with --pgo-eks-run"
            )
        return found

    def ensure(self, order: Order, intend: Callable[[], None]) -> tuple[Stack, bool]:
        """Bring a stack to CREATE_COMPLETE; return it, and whether this call had it created.

        ``intend`` is called before AWS is asked to create it.

        :raises StackFailed: it failed; it is left for the caller to remove.
        :raises ClusterProblem: it is in a state that this program never makes.
        """
        clock = self._aws.clock
        ends, created = clock.now() + order.within_s, False
        while True:
            found = self.own(order.layer)
            if found is None:
                intend()
                self._create(order)
                created = True
                continue
            if found.status == "CREATE_COMPLETE":
                return found, created
            if found.status == "REVIEW_IN_PROGRESS":
                # What is left of a plan: there is nothing in it.
                self._aws.call("cloudformation", "delete_stack", StackName=found.id)
                continue
            if not found.running:
                raise self._failed(found)
            if clock.now() >= ends:
                raise ClusterProblem(
                    f"stack {found.name} is {found.status} after {order.within_s:.0f} s; last: "
                    f"{self._story(found, order.size)}; it goes on by itself: start again with "
                    f"--pgo-eks-run={self._names.run}, or sweep it"
                )
            self.say(self._story(found, order.size))
            clock.pause(POLL_S)

    def remove(self, found: Stack, *, within_s: float, force: bool = False) -> None:
        """Have a stack deleted and wait until it is.

        :raises StackFailed: DELETE_FAILED, with what was in the way.
        """
        clock = self._aws.clock
        ends = clock.now() + within_s
        asked = False
        while True:
            # By id: by name a wrong region looks just like a stack that is gone.
            now = self.look(found.id)
            if now is None:
                return
            if now.status != "DELETE_IN_PROGRESS":
                if asked and now.status == "DELETE_FAILED":
                    raise self._failed(now, "DELETE")
                mode = {"DeletionMode": "FORCE_DELETE_STACK"} if force else {}
                self._aws.call("cloudformation", "delete_stack", StackName=found.id, **mode)
                asked = True
                continue
            asked = True
            if clock.now() >= ends:
                raise ClusterProblem(
                    f"stack {found.name} is {now.status} after {within_s:.0f} s; last: "
                    f"{self._story(now, 0)}"
                )
            self.say(self._story(now, 0))
            clock.pause(POLL_S)

    def events(self, found: Stack) -> list[dict[str, Any]]:
        return list(
            self._aws.every(
                "cloudformation", "describe_stack_events", "StackEvents", StackName=found.id
            )
        )

    def _create(self, order: Order) -> None:
        given = [{"ParameterKey": k, "ParameterValue": v} for k, v in order.parameters.items()]
        try:
            self._aws.call(
                "cloudformation",
                "create_stack",
                StackName=self._names.stack(order.layer),
                TemplateBody=order.body,
                Parameters=given,
                Capabilities=_CAPABILITIES,
                # Nothing is rolled back: the reason stays to be read, and a retry costs less.
                OnFailure="DO_NOTHING",
                ClientRequestToken=order.token,
                Tags=tag_list(order.tags),
            )
        except AwsRefused as refused:
            # Somebody was quicker, or the answer to an earlier call was lost: look again.
            if refused.code != "AlreadyExistsException":
                raise

    def _failed(self, found: Stack, verb: str = "CREATE") -> StackFailed:
        reasons = tuple(causes(self.events(found), verb))
        if found.status.startswith("UPDATE_") or found.status.startswith("IMPORT_"):
            return StackFailed(
                f"stack {found.name} is {found.status}: somebody changed it by hand; "
                "remove it, or choose another run", ()
            )  # fmt: skip
        first = str(reasons[0]) if reasons else found.reason or "no reason was given"
        others = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return StackFailed(f"stack {found.name} is {found.status}: {first}{others}", reasons)

    def _story(self, found: Stack, size: int) -> str:
        """Return how far a stack has come, from its events."""
        latest: dict[str, tuple[str, str]] = {}
        for event in reversed(self.events(found)):
            if event["ResourceType"] != "AWS::CloudFormation::Stack":
                latest[event["LogicalResourceId"]] = (
                    event["ResourceStatus"],
                    event["ResourceType"],
                )
        verb = found.status.partition("_")[0]
        done = sum(status == f"{verb}_COMPLETE" for status, _ in latest.values())
        busy = [
            f"{name} ({kind.removeprefix('AWS::')})"
            for name, (status, kind) in latest.items()
            if status == f"{verb}_IN_PROGRESS"
        ]
        of = f" of {size}" if size else ""
        return f"{done}{of} done; at work: {', '.join(busy[:4]) or 'nothing'}"
