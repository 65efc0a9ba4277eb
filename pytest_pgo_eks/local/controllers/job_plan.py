"""What a Job needs next, decided without I/O.

Every pod carries a finalizer until it is counted, so a pod that is deleted after its end is counted
all the same, exactly once (https://kubernetes.io/docs/concepts/workloads/controllers/job/).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_pgo_eks.local.controllers.clock import epoch
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminal, is_terminating, phase
from pytest_pgo_eks.local.objects import Obj, annotations_of, labels_of, matches

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass
class JobCount:
    """A Job's pods by what became of them. UIDs in ``new_…`` still carry the finalizer."""

    succeeded: int = 0
    failed: int = 0
    active: list[Obj] = field(default_factory=list)
    terminating: list[Obj] = field(default_factory=list)
    counted: list[Obj] = field(default_factory=list)  # in the status: the finalizer may go
    uncounted_succeeded: list[str] = field(default_factory=list)
    uncounted_failed: list[str] = field(default_factory=list)
    completed_indexes: set[int] = field(default_factory=set)
    restarts: int = 0
    last_failure: float = 0.0  # epoch seconds
    verdict: str | None = None  # why podFailurePolicy fails the Job

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)

    @property
    def settled(self) -> bool:
        """Say whether every pod has ended and is counted."""
        return not (
            self.active or self.terminating or self.uncounted_succeeded or self.uncounted_failed
        )


def count(job: Obj, pods: Sequence[Obj]) -> JobCount:
    """Count the Job's pods on top of what its status already holds."""
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    waiting = {
        "succeeded": set(uncounted.get("succeeded") or []),
        "failed": set(uncounted.get("failed") or []),
    }
    tracked = {
        p["metadata"]["uid"]: p for p in pods if TRACKING in (p["metadata"].get("finalizers") or [])
    }
    found = JobCount(
        completed_indexes=parse_indexes(status.get("completedIndexes") or ""),
        succeeded=status.get("succeeded") or 0,
        failed=status.get("failed") or 0,
    )
    # Listed before, and its finalizer is gone: counted for good now.
    found.succeeded += len(waiting["succeeded"] - tracked.keys())
    found.failed += len(waiting["failed"] - tracked.keys())
    known = {uid for uids in waiting.values() for uid in uids}
    found.uncounted_succeeded = sorted(waiting["succeeded"] & tracked.keys())
    found.uncounted_failed = sorted(waiting["failed"] & tracked.keys())
    found.counted = [tracked[uid] for uid in sorted(known & tracked.keys())]
    for uid, pod in sorted(tracked.items()):
        if uid not in known:
            _sort_in(job, pod, found)
    for pod in pods:
        if is_terminal(pod):
            if phase(pod) == "Failed":
                found.last_failure = max(found.last_failure, _ended(pod))
        elif is_terminating(pod):
            found.terminating.append(pod)
        else:
            found.active.append(pod)
            found.restarts += _restarts(pod)
    return found


def _sort_in(job: Obj, pod: Obj, found: JobCount) -> None:
    """Put a pod that was never counted where it belongs, if it has ended."""
    uid = pod["metadata"]["uid"]
    if phase(pod) == "Succeeded":
        if job["spec"].get("completionMode") == "Indexed":
            index = index_of(pod)
            if index is None or index in found.completed_indexes:
                found.counted.append(pod)
                return
            found.completed_indexes.add(index)
        found.uncounted_succeeded.append(uid)
    elif _has_failed(job, pod):
        action = _policy_action(job, pod)
        if action == "Ignore":
            found.counted.append(pod)
            return
        if action == "FailJob":
            name = pod["metadata"]["name"]
            found.verdict = f"Pod {pod['metadata']['namespace']}/{name} has matched a FailJob rule"
        found.uncounted_failed.append(uid)


def _has_failed(job: Obj, pod: Obj) -> bool:
    if phase(pod) == "Failed":
        return True
    if job["spec"].get("podReplacementPolicy", "TerminatingOrFailed") == "Failed":
        return False
    return is_terminating(pod)


def _policy_action(job: Obj, pod: Obj) -> str:
    for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules") or []:
        if _matches_codes(rule.get("onExitCodes"), pod) or any(
            _matches_condition(pattern, pod) for pattern in rule.get("onPodConditions") or []
        ):
            action: str = rule["action"]
            return action
    return "Count"


def _matches_codes(rule: Obj | None, pod: Obj) -> bool:
    if not rule:
        return False
    status = pod.get("status") or {}
    for state in [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]:
        ended = (state.get("state") or {}).get("terminated")
        if not ended or not ended.get("exitCode"):
            continue
        if rule.get("containerName") and rule["containerName"] != state["name"]:
            continue
        if (ended["exitCode"] in rule["values"]) == (rule["operator"] == "In"):
            return True
    return False


def _matches_condition(pattern: Obj, pod: Obj) -> bool:
    condition = condition_of(pod, pattern["type"])
    return condition is not None and condition["status"] == (pattern.get("status") or "True")


@dataclass(frozen=True)
class JobStep:
    """What to do about a Job now."""

    create: int = 0
    indexes: tuple[int, ...] = ()
    delete: tuple[Obj, ...] = ()
    failure: tuple[str, str] | None = None  # reason, message
    complete: bool = False
    look_again_s: float | None = None


def step(job: Obj, found: JobCount, *, backoff_s: float, backoff_max_s: float) -> JobStep:
    """Return the next step; ``backoff_s`` is the pause before a failed pod is replaced."""
    spec = job["spec"]
    completions, parallelism = spec.get("completions"), spec.get("parallelism", 1)
    failure = _failure(job, found)
    if failure:
        return JobStep(delete=tuple(found.active), failure=failure)
    deadline_s = _deadline_left(job)
    if _is_complete(completions, found):
        return JobStep(delete=tuple(found.active), complete=True)
    if spec.get("suspend"):
        return JobStep(delete=tuple(found.active))
    if completions is None:
        wanted = len(found.active) if found.all_succeeded else parallelism
    else:
        wanted = min(parallelism, completions - found.all_succeeded)
    running = len(found.active)
    if spec.get("podReplacementPolicy") == "Failed":
        running += len(found.terminating)
    if running > wanted:
        surplus = sorted(found.active, key=lambda p: (is_ready(p), p["metadata"]["name"]))
        return JobStep(delete=tuple(surplus[: running - wanted]), look_again_s=deadline_s)
    if running < wanted:
        wait_s = _backoff_left(found, backoff_s, backoff_max_s)
        if wait_s > 0:
            wait_s = min(wait_s, deadline_s) if deadline_s else wait_s
            return JobStep(look_again_s=wait_s)
        missing = wanted - running
        indexes = _free_indexes(job, found, missing)
        return JobStep(create=missing, indexes=indexes, look_again_s=deadline_s)
    return JobStep(look_again_s=deadline_s)


def _is_complete(completions: int | None, found: JobCount) -> bool:
    if completions is None:
        return found.all_succeeded > 0 and not found.active
    return found.all_succeeded >= completions


def _failure(job: Obj, found: JobCount) -> tuple[str, str] | None:
    target = condition_of(job, "FailureTarget")
    if target and target["status"] == "True":
        return target.get("reason", ""), target.get("message", "")
    if found.verdict:
        return "PodFailurePolicy", found.verdict
    limit = job["spec"].get("backoffLimit", 6)
    restarts = job["spec"]["template"]["spec"].get("restartPolicy") == "OnFailure"
    if found.all_failed > limit or (restarts and found.restarts and found.restarts >= limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left_s = _deadline_left(job)
    if left_s is not None and left_s <= 0:
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    return None


def _deadline_left(job: Obj) -> float | None:
    deadline_s = job["spec"].get("activeDeadlineSeconds")
    started = epoch((job.get("status") or {}).get("startTime"))
    if deadline_s is None or job["spec"].get("suspend"):
        return None
    return (started or time.time()) + float(deadline_s) - time.time()


def _backoff_left(found: JobCount, backoff_s: float, backoff_max_s: float) -> float:
    if not found.all_failed or not found.last_failure:
        return 0.0
    pause_s: float = min(backoff_max_s, backoff_s * 2 ** min(found.all_failed - 1, 20))
    return found.last_failure + pause_s - time.time()


def _free_indexes(job: Obj, found: JobCount, most: int) -> tuple[int, ...]:
    if job["spec"].get("completionMode") != "Indexed":
        return ()
    taken = found.completed_indexes | {index_of(p) for p in found.active}
    free = [i for i in range(job["spec"]["completions"]) if i not in taken]
    return tuple(free[:most])


def _ended(pod: Obj) -> float:
    times = [
        epoch(((state.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for state in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    return max([t for t in times if t], default=epoch(pod["metadata"].get("creationTimestamp")))


def _restarts(pod: Obj) -> int:
    status = pod.get("status") or {}
    states = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    return sum(state.get("restartCount") or 0 for state in states)


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX) or labels_of(pod).get(INDEX) or ""
    return int(text) if text.isdecimal() else None


def parse_indexes(text: str) -> set[int]:
    """Read ``0-2,5`` as a set of numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    """Write a set of numbers as ``0-2,5``."""
    parts: list[str] = []
    ordered = sorted(indexes)
    while ordered:
        last = 0
        while last + 1 < len(ordered) and ordered[last + 1] == ordered[last] + 1:
            last += 1
        parts.append(str(ordered[0]) if not last else f"{ordered[0]}-{ordered[last]}")
        ordered = ordered[last + 1 :]
    return ",".join(parts)


def selector_of(job: Obj) -> Mapping[str, object]:
    """Return the Job's selector, or the one the API server would have made."""
    uid = job["metadata"]["uid"]
    return job["spec"].get("selector") or {
        "matchLabels": {"batch.kubernetes.io/controller-uid": uid}
    }


def is_selected(job: Obj, pod: Obj) -> bool:
    return matches(selector_of(job), labels_of(pod))
