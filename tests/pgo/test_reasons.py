"""Why a cluster does not come up: found early, with the line that tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import PostgresCluster, names, verify
from pytest_pgo_eks.pgo.trouble import Patience, Trouble, explain, telling_line, troubles

from .conftest import NAMESPACE, PRIMARY, RECORDED, REPLICA, FakeKube

LOG = """2026-11-23 09:20:01 UTC LOG: starting
initdb: error: could not create directory "/pgdata/pg17": Permission denied
psql: FATAL:  the database system is starting up
removing contents
"""


def waiting(kube: FakeKube, reason: str, message: str = "", **more: Any) -> None:
    status = kube.one("Pod", PRIMARY)["status"]
    container = status["containerStatuses"][0]
    container.update(ready=False, state={"waiting": {"reason": reason, "message": message}}, **more)


@pytest.mark.parametrize(
    ("reason", "more", "sentence", "log"),
    [
        ("ErrImagePull", {}, "cannot be pulled: why", False),
        ("ImagePullBackOff", {}, "cannot be pulled: why", False),
        ("InvalidImageName", {}, "InvalidImageName: why", False),
        ("CreateContainerConfigError", {}, "CreateContainerConfigError: why", False),
        (
            "CrashLoopBackOff",
            {"restartCount": 5, "lastState": {"terminated": {"exitCode": 3}}},
            "crashed 5 times, last with exit status 3",
            True,
        ),
    ],
)
def test_containers_say_why_they_do_not_run(
    kube: FakeKube, reason: str, more: dict[str, Any], sentence: str, log: bool
) -> None:
    waiting(kube, reason, "why", **more)
    (found,) = troubles(kube.objects["Pod"], [])
    assert sentence in found.sentence
    assert found.sentence.startswith(f"{PRIMARY}/")
    assert (found.log is not None) is log


def test_what_starts_or_goes_is_no_trouble(kube: FakeKube) -> None:
    assert troubles(kube.objects["Pod"], kube.objects["PersistentVolumeClaim"]) == []
    waiting(kube, "ContainerCreating")
    assert troubles(kube.objects["Pod"], []) == []
    waiting(kube, "CrashLoopBackOff", restartCount=1)
    assert troubles(kube.objects["Pod"], []) == []
    waiting(kube, "ErrImagePull")
    kube.one("Pod", PRIMARY)["metadata"]["deletionTimestamp"] = "now"
    assert troubles(kube.objects["Pod"], []) == []


def test_scheduling_volumes_and_bootstrap_have_their_sentences(kube: FakeKube) -> None:
    kube.one("Pod", REPLICA)["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes",
        }
    ]
    kube.one("Pod", PRIMARY)["metadata"]["annotations"]["status"] = '{"state": "initdb failed"}'
    claim = kube.objects["PersistentVolumeClaim"][0]
    claim["status"] = {"phase": "Pending"}
    sentences = [one.sentence for one in troubles(kube.objects["Pod"], [claim])]
    assert f"{PRIMARY}: Patroni says 'initdb failed'" in sentences
    assert f"{REPLICA} cannot be scheduled: 0/3 nodes" in sentences
    assert any("is Pending, of storage class local-path" in one for one in sentences)


def test_patience_ends_with_the_grace_and_starts_again_when_it_passes() -> None:
    time = [0.0]
    patience = Patience(lambda: time[0], scale=2)
    trouble = Trouble("image", "no image", grace_s=10)
    assert patience.hopeless([trouble]) is None
    time[0] = 19
    assert patience.hopeless([trouble]) is None
    assert patience.hopeless([]) is None
    assert patience.hopeless([trouble]) is None
    time[0] = 38.9
    assert patience.hopeless([trouble]) is None
    time[0] = 39
    assert patience.hopeless([trouble]) == trouble


def test_the_telling_line_is_the_last_that_gives_a_reason() -> None:
    assert (
        telling_line(LOG)
        == 'initdb: error: could not create directory "/pgdata/pg17": Permission denied'
    )
    assert telling_line("FATAL:  invalid value\nTraceback\nException: Failed to bootstrap") == (
        "FATAL:  invalid value"
    )
    assert telling_line("one\ntwo\n\n") == "two"
    assert telling_line("\n") is None


def test_an_explanation_has_logs_and_warnings(kube: FakeKube) -> None:
    waiting(kube, "CrashLoopBackOff", restartCount=3)
    container = kube.one("Pod", PRIMARY)["status"]["containerStatuses"][0]["name"]
    kube.texts[PRIMARY, container, True] = LOG
    about = {"kind": "PostgresCluster", "name": "hippo"}
    kube.objects["Event"] = [
        {
            "type": "Warning",
            "reason": "MissingRequiredImage",
            "message": "no image",
            "involvedObject": about,
        },
        {"type": "Normal", "reason": "Fine", "involvedObject": about},
        {"type": "Warning", "reason": "Unhealthy", "involvedObject": {"name": "hippo-x-0"}},
        {"type": "Warning", "reason": "Else", "involvedObject": {"name": "hippopotamus"}},
    ]
    lines = explain(kube, NAMESPACE, "hippo", troubles(kube.objects["Pod"], []))
    assert len(lines) == 2
    assert "crashed 3 times" in lines[0]
    assert "Permission denied" in lines[0]
    assert lines[1] == "PostgresCluster hippo: MissingRequiredImage: no image"


def test_an_explanation_never_fails(kube: FakeKube) -> None:
    waiting(kube, "CrashLoopBackOff", restartCount=3)
    kube.objects["Event"] = []
    (line,) = explain(kube, NAMESPACE, "hippo", troubles(kube.objects["Pod"], []))
    assert "its log cannot be read: no such log" in line


class StillFeed:
    """A feed that never changes."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self._objects = objects

    def objects(self, labels: dict[str, str] | None = None) -> list[dict[str, Any]]:
        return [
            one
            for one in self._objects
            if all(names.labels(one).get(k) == v for k, v in (labels or {}).items())
        ]

    def get(self, name: str) -> dict[str, Any] | None:
        return next((o for o in self._objects if o["metadata"]["name"] == name), None)


class StillWatcher:
    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube

    def feed(self, kind: str, namespace: str) -> StillFeed:
        assert namespace == NAMESPACE
        return StillFeed(self.kube.objects[kind])

    def any_of(self, *feeds: StillFeed) -> Any:
        class Never:
            def sequence(self) -> int:
                return 0

            def wait(self, after: int, timeout_s: float) -> int:
                return 0

        return Never()

    def close(self) -> None:
        pass


@pytest.fixture
def still(kube: FakeKube, postgres: PostgresCluster) -> PostgresCluster:
    postgres.watcher = StillWatcher(kube)  # type: ignore[assignment]
    kube.objects["Event"] = []
    return postgres


def test_a_cluster_that_is_up_is_ready(still: PostgresCluster) -> None:
    assert still.wait_ready(within_s=1).status is not None


def test_a_wait_asks_the_api_once_when_the_watches_are_content(
    kube: FakeKube, still: PostgresCluster
) -> None:
    seen = still.wait(lambda one: len(one.instances) == 3, within_s=1, what="three instances")
    assert len(seen.instances) == 3
    # The PostgresCluster, its pods and the Endpoints, and the nodes once.
    assert [call[0] for call in kube.calls] == ["list", "get", "list", "list"]


def test_a_watch_that_shows_an_old_truth_does_not_end_a_wait(
    kube: FakeKube, still: PostgresCluster
) -> None:
    old = StillWatcher(FakeKube(RECORDED))
    still.watcher = old  # type: ignore[assignment]
    kube.one("Endpoints", "hippo-ha")["metadata"]["annotations"]["leader"] = "another-0"
    with pytest.raises(TimeoutError, match="leader record: another-0"):
        still.wait(
            lambda one: one.leader is not None and one.leader.leader == PRIMARY,
            within_s=0.2,
            what="the old leader",
        )


def test_a_cluster_that_cannot_come_up_ends_early_with_its_reason(
    kube: FakeKube, still: PostgresCluster
) -> None:
    waiting(kube, "ImagePullBackOff", 'no such image "nowhere/postgres:17"')
    kube.one("Pod", PRIMARY)["status"]["conditions"] = []
    with pytest.raises(Inconclusive) as caught:
        still.wait_ready(within_s=600, grace_scale=0.01)
    told = str(caught.value)
    assert "PostgresCluster postgres-operator/hippo did not come up" in told
    assert "reason: hippo-instance1-7fwv-0/" in told
    assert "nowhere/postgres:17" in told
    assert "missing: set instance1: 2 of 3 instances ready" in told


def test_a_cluster_that_is_late_says_what_is_missing(
    kube: FakeKube, still: PostgresCluster
) -> None:
    kube.one("PostgresCluster", "hippo")["status"]["patroni"].clear()
    with pytest.raises(Inconclusive, match="missing: no system identifier"):
        still.wait_ready(within_s=0.1)
    kube.one("Pod", PRIMARY)["status"]["conditions"] = []
    kube.texts[PRIMARY, "database", False] = LOG
    with pytest.raises(Inconclusive, match=f"reason: {PRIMARY} is not ready; its log: initdb"):
        still.wait_ready(within_s=0.1)


def test_the_operator_is_verified(kube: FakeKube) -> None:
    found = verify(kube, NAMESPACE, within_s=1)
    assert (found.version, found.release.series) == ("6.0.3", "6.0")
    assert found.pod == "pgo-578c58f766-gt9l6"
    assert found.api_versions == ("v1", "v1beta1")
    assert not found.stand_in
    assert found.lease_holder is not None
    assert found.lease_holder.startswith(found.pod)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda k: k.objects.update(Deployment=[]), "no Deployment of an operator"),
        (
            lambda k: k.objects["Deployment"][0]["status"].update(conditions=[]),
            "Deployment pgo is not available",
        ),
        (lambda k: k.objects.update(CustomResourceDefinition=[]), "is missing"),
        (
            lambda k: k.objects["CustomResourceDefinition"][0].update(status={}),
            "is not established",
        ),
        (
            lambda k: k.one("Pod", "pgo-578c58f766-gt9l6")["status"].update(phase="Pending"),
            "0 operator pods run",
        ),
    ],
)
def test_an_operator_that_is_not_there_is_inconclusive_with_the_reason(
    kube: FakeKube, change: Callable[[FakeKube], object], sentence: str
) -> None:
    change(kube)
    kube.objects["Event"] = []
    with pytest.raises(Inconclusive, match=sentence) as caught:
        verify(kube, NAMESPACE, within_s=0.1)
    assert isinstance(kube, Kube)
    assert "no operator in namespace postgres-operator" in str(caught.value)
