"""A recorded cluster of the real PGO 6.0.3, and a fake client that refuses what it was not told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.errors import NotFound
from pytest_pgo_eks.kube import ExecResult, Kube
from pytest_pgo_eks.pgo import PostgresCluster, names
from pytest_pgo_eks.pgo.manifest import Declared
from pytest_pgo_eks.pgo.observation import Observation
from pytest_pgo_eks.pgo.reading import observation_of
from pytest_pgo_eks.postgres import Receiver, Sender, ServerState

Object = dict[str, Any]
RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
NAMESPACE = "postgres-operator"
PRIMARY = "hippo-instance1-7fwv-0"
STANDBY = "hippo-instance1-75jd-0"
REPLICA = "hippo-instance1-6mn7-0"
SYSTEM = "7711294170323189864"
EXPECTED = Declared({"instance1": 3}, ("repo1",), proxy=True)


class FakeKube(Kube):
    """Answers from objects in memory; every call is noted, an unknown one fails the test."""

    def __init__(self, objects: Mapping[str, list[Object]]) -> None:
        # Not the parent's: nothing here may reach a server.
        self.objects = copy.deepcopy(dict(objects))
        self.calls: list[tuple[Any, ...]] = []
        self.texts: dict[tuple[str, str, bool], str] = {}
        self.since: list[int | None] = []
        self.shell: Callable[[str, Sequence[str], str], ExecResult] | None = None

    def __getattribute__(self, name: str) -> Any:
        allowed = {
            "objects", "calls", "texts", "since", "shell", "one", "get", "find", "list", "logs", "exec",
            "patch", "apply", "delete",
        }  # fmt: skip
        if name not in allowed and not name.startswith("__"):
            raise AssertionError(f"a call that the test did not expect: {name}")
        return super().__getattribute__(name)

    def one(self, kind: str, name: str) -> Object:
        found: Object = next(o for o in self.objects[kind] if o["metadata"]["name"] == name)
        return found

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        self.calls.append(("get", kind, name))
        for one in self.objects[kind.rpartition("/")[2]]:
            if one["metadata"]["name"] == name:
                return copy.deepcopy(one)
        raise NotFound(f"{kind} {name} not found", status=404)

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def list(
        self, kind: str, namespace: str | None = None, *, labels: Any = None, fields: Any = None
    ) -> Any:
        assert fields is None
        self.calls.append(("list", kind, namespace))
        found = copy.deepcopy(self.objects[kind.rpartition("/")[2]])
        if isinstance(labels, str):
            key, _, values = labels.partition(" in (")
            wanted = values.rstrip(")").split(",")
            return [one for one in found if names.labels(one).get(key) in wanted]
        return [
            one
            for one in found
            if all(names.labels(one).get(key) == value for key, value in (labels or {}).items())
        ]

    def logs(self, namespace: str, pod: str, **more: Any) -> str:
        container, previous = more["container"], more.get("previous", False)
        if container == "database":
            self.since.append(more.get("since_s"))
        self.calls.append(("logs", pod, container, previous))
        try:
            return self.texts[pod, container, previous]
        except KeyError:
            raise NotFound("no such log", status=404) from None

    def exec(self, namespace: str, pod: str, command: Sequence[str], **more: Any) -> ExecResult:
        assert more["container"] == "database"
        self.calls.append(("exec", pod, tuple(command)))
        assert self.shell is not None, "a command that the test did not expect"
        return self.shell(pod, command, more.get("stdin") or "")

    def patch(self, kind: str, name: str, namespace: str | None, patch: Any, **more: Any) -> Object:
        assert not more
        self.calls.append(("patch", kind, name, patch))
        return {}

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        self.calls.append(("apply", manifest["metadata"]["name"], force))
        return dict(manifest)

    def delete(self, kind: str, name: str, namespace: str | None = None, **more: Any) -> None:
        assert not more
        self.calls.append(("delete", kind, name))


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(RECORDED)


@pytest.fixture
def postgres(kube: FakeKube) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(kube, NAMESPACE, "hippo")
    yield cluster
    cluster.close()


def observe(kube: FakeKube, servers: Mapping[str, ServerState] | None = None) -> Observation:
    clusters = kube.objects["PostgresCluster"]
    return observation_of(
        "hippo",
        NAMESPACE,
        cluster=clusters[0] if clusters else None,
        pods=kube.objects["Pod"],
        endpoints=kube.objects["Endpoints"],
        zones={"bed-1": "zone-a"},
        servers=servers,
    )


def server(pod: str, **changes: Any) -> ServerState:
    """What SQL says of a healthy primary or replica of the recorded cluster."""
    primary = pod == PRIMARY
    stood: dict[str, Any] = {
        "pod": pod,
        "in_recovery": not primary,
        "timeline": 1,
        "checkpoint_timeline": 1,
        "system_identifier": SYSTEM,
        "version": "17.12",
        "version_number": 170012,
        "started": datetime(2026, 11, 23, tzinfo=UTC),
        "current_lsn": 1000 if primary else None,
        "flush_lsn": 1000 if primary else None,
        "received_lsn": None if primary else 1000,
        "replayed_lsn": None if primary else 1000,
        "replay_age_s": None,
        "replay_paused": False,
        "synchronous_standby_names": f'"{STANDBY}"' if primary else "",
        "synchronous_commit": "on",
        "read_only": not primary,
        "settings_pending_restart": 0,
        "senders": tuple(sender(one, one == STANDBY) for one in (STANDBY, REPLICA))
        if primary
        else (),
        "receiver": None
        if primary
        else Receiver("streaming", 1, 1000, 1000, 1000, "hippo-instance1-7fwv-0.hippo-pods", ""),
    }
    return ServerState(**{**stood, **changes})


def sender(pod: str, synchronous: bool) -> Sender:
    how = "sync" if synchronous else "async"
    return Sender(pod, None, "streaming", how, 1000, 1000, 1000, 1000, None, None, None)


def servers(**changes: dict[str, Any]) -> dict[str, ServerState]:
    """All three servers; ``changes`` by ``primary``, ``standby`` and ``replica``."""
    given = {"primary": PRIMARY, "standby": STANDBY, "replica": REPLICA}
    return {pod: server(pod, **changes.get(name, {})) for name, pod in given.items()}
