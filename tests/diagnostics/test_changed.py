"""What is told of a change: the fields, by the names of what is in lists, without the noise."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.diagnostics.changed import changes
from pytest_pgo_eks.diagnostics.describing import describe
from pytest_pgo_eks.diagnostics.recorder import _since


def test_fields_are_named_by_their_path_and_items_by_their_name() -> None:
    old = {
        "metadata": {"labels": {"role": "master"}, "resourceVersion": "1", "managedFields": [1]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    new = {
        "metadata": {"labels": {"role": "replica"}, "resourceVersion": "2", "managedFields": [2]},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "New", "status": "True"}]
        },
    }
    assert changes(old, new) == [
        "metadata.labels.role: master → replica",
        "status.conditions[New]: – → {'type': 'New', 'status': 'True'}",
        "status.conditions[Ready].status: True → False",
    ]
    assert changes(old, old) == []
    assert changes(None, new) == []


def test_what_is_long_is_cut_and_counted() -> None:
    old: dict[str, Any] = {}
    new = {f"k{number:02}": "x" * 500 for number in range(20)}
    told = changes(old, new)
    assert len(told) == 13
    assert told[-1] == "… and 8 more"
    assert max(map(len, told)) < 200


def test_a_scenario_gets_what_was_written_since_it_began(tmp_path: Any) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "2026-01-01T00:00:01.5Z early\n"
        "  its second line\n"
        "2026-01-01T00:00:02.100000000Z late\n"
        "  its second line\n",
        "utf-8",
    )
    assert _since(path, "2026-01-01T00:00:02.000000Z") == [
        "2026-01-01T00:00:02.100000000Z late",
        "  its second line",
    ]
    assert len(_since(path, "")) == 4


def test_a_pod_is_described_with_its_containers_and_its_own_events() -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "c",
                    "ready": False,
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        },
    }
    events = [
        {"involvedObject": {"name": "p"}, "type": "Warning", "reason": "BackOff", "message": "x"},
        {"involvedObject": {"name": "q"}, "type": "Warning", "reason": "Other", "message": "y"},
    ]
    text = describe(pod, events)
    assert "c: i, waiting (reason CrashLoopBackOff)" in text
    assert "restarted 2 times, before: terminated (exitCode 137, reason OOMKilled)" in text
    assert "Warning BackOff x1: x" in text
    assert "Other" not in text
