"""Patroni as its own tool sees it, through exec in an instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo.names import DATABASE
from pytest_pgo_eks.postgres import lsn_bytes
from pytest_pgo_eks.secrets import filtered


@dataclass(frozen=True)
class Member:
    """One line of ``patronictl list``. ``role`` is ``Leader``, ``Sync Standby``, ``Replica`` …"""

    name: str
    role: str
    state: str
    timeline: int | None
    lag_bytes: int | None
    pending_restart: bool


class Patroni:
    """``patronictl`` in one instance's ``database`` container."""

    def __init__(self, kube: Kube, namespace: str, pod: str) -> None:
        self.pod = pod
        self._kube = kube
        self._namespace = namespace

    def members(self) -> list[Member]:
        """Return ``patronictl list``, which asks every member over REST."""
        return [
            Member(
                name=one["Member"],
                role=one.get("Role", ""),
                state=one.get("State", ""),
                timeline=_whole(one.get("TL")),
                # One column until Patroni 4.0, two since.
                lag_bytes=_lag(one.get("Replay Lag", one.get("Lag in MB"))),
                pending_restart=bool(one.get("Pending restart")),
            )
            for one in self._json("list", "--format", "json")
        ]

    def history(self) -> list[dict[str, Any]]:
        """Return ``patronictl history``: TL, LSN (bytes), Reason, Timestamp, New Leader."""
        found = self._json("history", "--format", "json")
        return [
            {**one, "LSN": lsn_bytes(one["LSN"]) if "/" in str(one["LSN"]) else int(one["LSN"])}
            for one in found
        ]

    def configuration(self) -> dict[str, Any]:
        """Return the dynamic configuration in force."""
        said = yaml.safe_load(self.run("show-config"))
        if not isinstance(said, dict):
            raise ExecProblem(f"patronictl show-config in {self.pod}: no mapping")
        return said

    def run(self, *arguments: str, stdin: str | None = None, deadline_s: float = 30.0) -> str:
        """Run ``patronictl`` with any arguments and return what it printed.

        :raises ExecProblem: it ended with another status than 0.
        """
        ran = self._kube.exec(
            self._namespace,
            self.pod,
            ["patronictl", *arguments],
            container=DATABASE,
            stdin=stdin,
            deadline_s=deadline_s,
        )
        if ran.exit_status != 0:
            said = filtered(" ".join((ran.errors or ran.text).split()))[-300:]
            raise ExecProblem(
                f"patronictl {arguments[0]} in {self.pod} ended with {ran.exit_status}: {said}"
            )
        return ran.text

    def _json(self, *arguments: str) -> list[dict[str, Any]]:
        said = self.run(*arguments)
        try:
            found = json.loads(said)
        except ValueError as error:
            raise ExecProblem(
                f"patronictl {arguments[0]} in {self.pod}: no JSON: {filtered(said)[:200]}"
            ) from error
        if not isinstance(found, list):
            raise ExecProblem(f"patronictl {arguments[0]} in {self.pod}: no list")
        return found


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or str(value).isdigit() else None


def _lag(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
