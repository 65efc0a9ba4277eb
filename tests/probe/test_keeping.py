"""The probe's pod is kept: waited for, given up with a reason, replaced when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_pgo_eks.errors import WaitTimeout
from pytest_pgo_eks.probe import pod
from pytest_pgo_eks.probe.control import Installed


@dataclass
class Cluster:
    """Holds one pod whose status the test decides."""

    status: dict[str, Any]
    pod: dict[str, Any] | None = None
    applied: list[str] = field(default_factory=list)

    def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        assert (kind, name, namespace) == ("Pod", pod.DEFAULT_NAME, "ns")
        return self.pod

    def apply(self, manifest: Any, *, force: bool = False) -> dict[str, Any]:
        self.applied.append(manifest["kind"])
        if manifest["kind"] == "Pod":
            uid = f"uid-{self.applied.count('Pod')}"
            self.pod = {"metadata": {"name": pod.DEFAULT_NAME, "uid": uid}, "status": self.status}
        return dict(manifest)

    def delete(self, kind: str, name: str, namespace: str, **_: Any) -> None:
        assert (kind, name, namespace) == ("Pod", pod.DEFAULT_NAME, "ns")
        self.pod = None

    def exec(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("no command runs in this test")

    def open_exec(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("no command runs in this test")


RUNNING = {"phase": "Running", "containerStatuses": [{"containerID": "c1", "state": {}}]}


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_had_is_told_with_the_remedy(reason: str) -> None:
    waiting = {"state": {"waiting": {"reason": reason, "message": "no route to the registry"}}}
    cluster = Cluster({"phase": "Pending", "containerStatuses": [waiting]})
    with pytest.raises(WaitTimeout) as caught:
        pod.ensure(cluster, "ns", within_s=30, image="python:3.13-slim")
    said = str(caught.value)
    assert f"{reason}: no route to the registry" in said
    assert "--pgo-probe-image" in said


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installed, "install", lambda _self: None)


@pytest.mark.usefixtures("installs")
class TestKeeper:
    def keeper(self, cluster: Cluster) -> pod.Keeper:
        return pod.Keeper(
            cluster, "ns", pod.DEFAULT_NAME, lambda: pod.ensure(cluster, "ns", within_s=5)
        )

    def test_a_pod_that_runs_is_made_once(self) -> None:
        cluster = Cluster(RUNNING)
        keeper = self.keeper(cluster)
        assert keeper.installed() is keeper.installed()
        assert cluster.applied.count("Pod") == 1

    @pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
    def test_one_that_is_over_is_replaced(self, phase: str) -> None:
        cluster = Cluster(RUNNING)
        keeper = self.keeper(cluster)
        first = keeper.installed()
        assert cluster.pod is not None
        cluster.pod["status"] = {"phase": phase, "reason": "Evicted"}
        assert keeper.installed() is not first
        assert cluster.applied.count("Pod") == 2

    def test_a_container_that_started_anew_gets_the_agent_again(self) -> None:
        cluster = Cluster(RUNNING)
        keeper = self.keeper(cluster)
        first = keeper.installed()
        assert cluster.pod is not None
        cluster.pod["status"] = {
            "phase": "Running",
            "containerStatuses": [{"containerID": "c2", "state": {}}],
        }
        assert keeper.installed() is not first
        assert cluster.applied.count("Pod") == 1
