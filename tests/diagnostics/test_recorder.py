"""The recorder on a cluster: containers that are gone, changes in their order, and no secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.diagnostics.collect import Collection, collect
from pytest_pgo_eks.diagnostics.describing import describers
from pytest_pgo_eks.diagnostics.recorder import Recorder
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.secrets import filter_file

pytestmark = pytest.mark.cluster

# Planted where secrets are: in a Secret, in a log, in an annotation, in a command's arguments.
_CANARY = "canary-Tweet7Tweet9"


@pytest.fixture
def namespace(standin: ClusterHandle) -> Iterator[str]:
    name = f"recorded-{os.getpid()}-{token_hex(3)}"
    with Kube(standin.kubeconfig) as kube:
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield name
        kube.delete("Namespace", name)


def a_pod(namespace: str, script: str, **notes: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "talks", "namespace": namespace, "annotations": notes},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "c", "image": "stand-in/python:3", "command": ["sh", "-c", script]}
            ],
        },
    }


def test_a_container_that_is_gone_has_left_its_last_words(
    standin: ClusterHandle, namespace: str, tmp_path: Path
) -> None:
    with Kube(standin.kubeconfig) as kube, Kube(standin.kubeconfig) as own:
        recorder = Recorder(own, [namespace], tmp_path / "stream")
        recorder.start()
        try:
            begin = recorder.begin()
            kube.create(a_pod(namespace, "echo first words; sleep 1000"))
            log = tmp_path / "stream" / "talks.c.log"
            eventually(
                lambda: log.read_text() if log.exists() else "",
                accept=lambda text: "first words" in text,
                within_s=60,
                what="the log to be recorded",
                successes=1,
            )
            kube.patch("Pod", "talks", namespace, {"metadata": {"labels": {"role": "master"}}})
            kube.delete("Pod", "talks", namespace, grace_s=0)
            changed = tmp_path / "stream" / "changes.txt"
            eventually(
                changed.read_text,
                accept=lambda text: "Pod talks: deleted" in text,
                within_s=60,
                what="the end of the pod to be recorded",
                successes=1,
            )
            found = Collection(tmp_path / "diagnostics")
            recorder.extract(begin, found)
        finally:
            recorder.stop()
    assert "first words" in (tmp_path / "diagnostics" / "stream" / "talks.c.log").read_text()
    told = (tmp_path / "diagnostics" / "stream" / "changes.txt").read_text()
    order = [told.index(one) for one in ("talks: added", "'role': 'master'", "talks: deleted")]
    assert order == sorted(order)
    assert "Started Pod/talks" in (tmp_path / "diagnostics" / "stream" / "events.txt").read_text()


def test_a_secret_is_in_no_file_wherever_it_was_said(
    standin: ClusterHandle, namespace: str, tmp_path: Path
) -> None:
    with Kube(standin.kubeconfig) as kube, Kube(standin.kubeconfig) as own:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hippo-pguser-app", "namespace": namespace},
            "stringData": {"password": _CANARY, "uri": f"postgresql://app:{_CANARY}@host/db"},
        }
        kube.apply(secret)
        # Whoever reads a Secret through the client makes its values known to the filter.
        assert kube.secret_values(namespace, "hippo-pguser-app")["password"] == _CANARY
        recorder = Recorder(own, [namespace], tmp_path / "stream")
        recorder.start()
        try:
            begin = recorder.begin()
            kube.create(
                a_pod(namespace, f"echo password is {_CANARY}; sleep 1000", note=f"see {_CANARY}")
            )
            log = tmp_path / "stream" / "talks.c.log"
            eventually(
                lambda: log.read_text() if log.exists() else "",
                accept=lambda text: "password is" in text,
                within_s=60,
                what="the secret to be said",
                successes=1,
            )
            folder = tmp_path / "diagnostics"
            collect(
                kube,
                [namespace],
                folder,
                headline=f"it failed for {_CANARY}",
                more=[
                    *describers(kube, [namespace]),
                    ("recorded", lambda found: recorder.extract(begin, found)),
                ],
            )
        finally:
            recorder.stop()
    for path in folder.rglob("*"):
        filter_file(path)
    texts = {path: path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in texts} >= {
        "README.txt",
        "secret.yaml",
        "talks.c.log",
        "talks.txt",
        "changes.txt",
        "pod.yaml",
    }
    assert not [path for path, text in texts.items() if _CANARY in text]
    assert any("password is" in text for path, text in texts.items() if path.name == "talks.c.log")
