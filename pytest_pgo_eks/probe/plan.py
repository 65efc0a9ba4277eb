"""What a probe run is asked to do, as the runner says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.secrets import Secret

Hosts = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Login:
    """Where and as whom a session connects, seen from inside the cluster.

    ``tls`` is one of disable, prefer, require, verify-ca, verify-full (the latter two need
    ``ca_pem``); ``attributes`` is libpq's ``target_session_attrs``; ``host_s`` limits the attempt
    at one address (None: only the operation's deadline does); ``options`` are run-time parameters
    of the session (a PgBouncer refuses most of them).
    """

    hosts: Hosts
    user: str
    database: str
    password: Secret | None = None
    tls: str = "require"
    ca_pem: str | None = field(default=None, repr=False)
    attributes: str = "any"
    host_s: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, host: str, port: int = 5432, **rest: Any) -> Login:
        """Return a Login with one host."""
        return cls(hosts=((host, port),), **rest)

    def document(self) -> dict[str, Any]:
        """Return the agent's form of this, secrets in the clear: it goes to a standard input."""
        told: dict[str, Any] = {
            "hosts": [list(host) for host in self.hosts],
            "user": self.user,
            "database": self.database,
            "tls": self.tls,
            "attributes": self.attributes,
        }
        if self.password is not None:
            told["password"] = str(self.password)
        if self.ca_pem:
            told["ca_pem"] = self.ca_pem
        if self.host_s is not None:
            told["host_s"] = self.host_s
        if self.options:
            told["options"] = dict(self.options)
        return told


@dataclass(frozen=True)
class PathSpec:
    """The clients on one path. Seconds; 0 means "none of these".

    ``workers`` paced clients with a counter each, a scout every ``scout_every_s`` (a whole new
    session, overlapping), ``pinned`` sessions opened at the start and never again. ``reads``: all
    of them read all counters instead of writing. ``prepared`` False sends each statement whole,
    for a pooler in transaction mode. ``appenders`` run list-append transactions at ``isolation``
    (read committed, repeatable read, serializable). Counters are handed out by the runner (``first_key``).
    """

    name: str
    login: Login
    reads: bool = False
    workers: int = 0
    pace_s: float = 0.01
    deadline_s: float = 1.0
    scout_every_s: float = 0.0
    scout_deadline_s: float = 0.5
    pinned: int = 0
    pinned_pace_s: float = 0.05
    pinned_deadline_s: float | None = None
    appenders: int = 0
    isolation: str = "serializable"
    append_pace_s: float = 0.01
    prepared: bool = True

    def document(self, first_key: int) -> dict[str, Any]:
        """Return the agent's form of this."""
        plain = {
            name: getattr(self, name)
            for name in (
                "name",
                "reads",
                "workers",
                "pace_s",
                "deadline_s",
                "scout_every_s",
                "scout_deadline_s",
                "pinned",
                "pinned_pace_s",
                "pinned_deadline_s",
                "appenders",
                "isolation",
                "append_pace_s",
                "prepared",
            )
        }
        return plain | {"target": self.login.document(), "first_key": first_key}


@dataclass(frozen=True)
class MonitorSpec:
    """Look at one server every ``every_s`` seconds: role, timeline, WAL position, standbys.

    The login needs ``pg_monitor`` (or superuser) to see other users' replication state.
    """

    name: str
    login: Login
    every_s: float = 0.1

    def document(self) -> dict[str, Any]:
        """Return the agent's form of this."""
        return {"name": self.name, "target": self.login.document(), "every_s": self.every_s}


@dataclass(frozen=True)
class Answer:
    """What one single connection with one statement came to.

    ``stage`` is where it ended: ``connect``, ``statement`` or ``done``. ``code`` is a SQLSTATE, or
    one of our words (refused, reset, timeout, deadline, certificate, no-tls, name, attributes,
    lost); empty when it went well. ``rows`` are texts.
    """

    stage: str
    code: str
    message: str
    rows: tuple[tuple[str | None, ...], ...]
    columns: tuple[str, ...]
    notices: tuple[Mapping[str, str], ...]
    tls: bool
    took_s: float

    @property
    def ok(self) -> bool:
        return self.stage == "done"

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Answer:
        return cls(
            stage=told["stage"],
            code=told.get("code", ""),
            message=told.get("message", ""),
            rows=tuple(tuple(row) for row in told.get("rows", ())),
            columns=tuple(told.get("columns", ())),
            notices=tuple(told.get("notices", ())),
            tls=bool(told.get("tls")),
            took_s=float(told.get("took_s", 0.0)),
        )
