"""A cluster in memory for faults: it does what it is told, and can be told to do nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.faults.processes import Process, Processes
from pytest_pgo_eks.kube import ExecResult, Kube

Object = dict[str, Any]


class FakeKube:
    """Objects by kind and name; ``raw`` and ``exec`` go to functions that a test gives."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.answer: Callable[[str, str, Any], Any] = self._nothing
        self.shell: Callable[[str, Sequence[str]], ExecResult] | None = None
        self.on_delete: Callable[[str, str], None] = lambda kind, name: None

    @property
    def kube(self) -> Kube:
        return cast(Kube, self)

    @staticmethod
    def _nothing(method: str, path: str, _body: Any) -> Any:
        raise AssertionError(f"a request that the test did not expect: {method} {path}")

    def get(self, kind: str, name: str, _namespace: str | None = None) -> Object:
        try:
            return copy.deepcopy(self.objects[kind, name])
        except KeyError:
            raise NotFound(f"{kind} {name} not found", status=404) from None

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        found = self.objects.get((kind, name))
        return copy.deepcopy(found)

    def list(self, kind: str, _namespace: str, *, labels: Any = None) -> Any:
        return [copy.deepcopy(one) for (of, _), one in self.objects.items() if of == kind]

    def create(self, manifest: Object) -> Object:
        self.objects[manifest["kind"], manifest["metadata"]["name"]] = copy.deepcopy(manifest)
        return manifest

    def patch(self, kind: str, name: str, _namespace: str | None, patch: Object) -> Object:
        self.calls.append(("patch", kind, name, patch))
        return {}

    def delete(self, kind: str, name: str, _namespace: str | None = None, **_more: Any) -> None:
        self.calls.append(("delete", kind, name))
        if self.objects.pop((kind, name), None) is None:
            raise NotFound(f"{kind} {name} not found", status=404)
        self.on_delete(kind, name)

    def raw(self, method: str, path: str, body: Any = None) -> Any:
        self.calls.append((method, path))
        return self.answer(method, path, body)

    def exec(self, _namespace: str, pod: str, command: Sequence[str], **_more: Any) -> ExecResult:
        assert self.shell is not None, "a command that the test did not expect"
        return self.shell(pod, command)


class FakeProcesses(Processes):
    """Processes by name. A signal works unless ``numb``; ``on_kill`` says what follows."""

    def __init__(self, pod: str = "pod-0", **states: str) -> None:
        self.pod = pod
        self.container = "database"
        self.table = {
            name: Process(100 + at, state, 1000 + at)
            for at, (name, state) in enumerate(states.items())
        }
        self.numb = False
        self.signals: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.on_kill: Callable[[str], None] = lambda name: None

    def find(self, name: str) -> Process | None:
        return self.table.get(name)

    def signal(self, name: str, number: str) -> Process:
        from pytest_pgo_eks.errors import FaultNotProven

        before = self.table.get(name)
        if before is None:
            raise FaultNotProven(f"no {name} process runs in {self.pod}")
        self.signals.append((name, number))
        if not self.numb:
            if number == "KILL":
                self.restart(name)
                self.on_kill(name)
            else:
                state = {"STOP": "T", "CONT": "S"}[number]
                self.table[name] = Process(before.pid, state, before.started)
        return before

    def run(self, script: str) -> str:
        self.scripts.append(script)
        if not self.numb:
            self.on_kill(script)
        return ""

    def restart(self, *names: str) -> None:
        """Let processes be others of the same name."""
        for name in names:
            one = self.table[name]
            self.table[name] = Process(one.pid + 50, "S", one.started + 50)


class FakeServer:
    """A server that answers by what a statement contains; a list is worked off, its last stays."""

    def __init__(self, pod: str = "pod-0", **answers: Any) -> None:
        self.pod = pod
        self.answers: dict[str, Any] = dict(answers)
        self.ran: list[str] = []

    def value(self, sql: str, **_: Any) -> Any:
        for part, found in self.answers.items():
            if part in sql:
                if isinstance(found, list):
                    return found.pop(0) if len(found) > 1 else found[0]
                return found
        raise AssertionError(f"a query that the test did not expect: {sql}")

    def one(self, sql: str, **_: Any) -> Any:
        return self.value(sql)

    def query(self, sql: str, **_: Any) -> Any:
        return self.value(sql)

    def run(self, sql: str, **_: Any) -> list[str]:
        self.ran.append(sql)
        return []


def refused_by_budget(*_: Any) -> Any:
    """Answer an eviction as the API does while a disruption budget forbids it."""
    raise ApiProblem("Cannot evict pod as it would violate the pod's disruption budget", status=429)
