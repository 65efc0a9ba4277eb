"""A world for steps: a recorded cluster that answers from memory, and can be made to lie."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from pgo.conftest import RECORDED, FakeKube, observe, servers

from pytest_pgo_eks.errors import WaitTimeout
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.pgo import Observation, Operator, PostgresCluster
from pytest_pgo_eks.postgres import HbaRule, Role, ServerState
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Answer, Login
from pytest_pgo_eks.report.evidence import ScenarioEvidence, ScenarioIdentity
from pytest_pgo_eks.scenario.stage import Stage
from pytest_pgo_eks.settings import Settings

Object = dict[str, Any]
Reply = Callable[[Login, str], Answer]

RULES = (
    HbaRule(1, "local", ("all",), ("postgres",), None, None, "peer", (), None),
    HbaRule(2, "host", ("all",), ("all",), "0.0.0.0", "0.0.0.0", "scram-sha-256", (), None),
)
SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "10",
    "wal_keep_size": "128MB",
    "work_mem": "5MB",
    "max_connections": "110",
    "primary_conninfo": "host=hippo-instance1-7fwv-0.hippo-pods user=_crunchyrepl sslmode=verify-ca",
}


def answer(*rows: tuple[str | None, ...], **changes: Any) -> Answer:
    """Return the answer of a statement that worked."""
    good: dict[str, Any] = {
        "stage": "done",
        "code": "",
        "message": "",
        "rows": rows,
        "columns": (),
        "notices": (),
        "tls": True,
        "took_s": 0.01,
    }
    return Answer(**{**good, **changes})


def refusal(code: str, message: str = "refused", stage: str = "connect") -> Answer:
    """Return the answer of an attempt that failed."""
    return answer(stage=stage, code=code, message=message, tls=False)


class WorldKube(FakeKube):
    """The recorded objects, with Secrets and Services beside them."""

    def __init__(self) -> None:
        super().__init__(RECORDED)
        text = base64.b64encode(b"value").decode()
        keys = ("host", "port", "dbname", "user", "password", "pgbouncer-host", "pgbouncer-port")
        self.values = {key: key for key in keys} | {"port": "5432", "pgbouncer-port": "5432"}
        self.values["user"] = "testuser"
        labels = {"postgres-operator.crunchydata.com/cluster": "hippo"}
        sets = labels | {"postgres-operator.crunchydata.com/instance-set": "instance1"}
        self.objects |= {
            "Secret": [
                {"metadata": {"name": "hippo-cluster-cert"}, "data": {"ca.crt": text}},
                {
                    "metadata": {"name": "hippo-pgbouncer"},
                    "data": {"pgbouncer-frontend.ca-roots": text},
                },
            ],
            "Service": [
                {"metadata": {"name": f"hippo-{name}"}, "spec": {"ports": [{"port": 5432}]}}
                for name in ("ha", "replicas", "primary")
            ],
            "PodDisruptionBudget": [
                {"metadata": {"name": "hippo-set", "labels": sets}, "spec": {"minAvailable": 1}}
            ],
        }
        self.objects["Deployment"][0].setdefault("spec", {"replicas": 1})

    def __getattribute__(self, name: str) -> Any:
        if name in {"values", "secret_values"}:
            return object.__getattribute__(self, name)
        return super().__getattribute__(name)

    def secret_values(self, namespace: str, name: str) -> dict[str, str]:
        assert name == "hippo-pguser-testuser"
        return dict(self.values)


class WorldServer:
    """One server whose answers are given."""

    def __init__(self, world: World, pod: str) -> None:
        self._world = world
        self.pod = pod

    def setting(self, name: str) -> str:
        return self._world.settings[self.pod][name]

    def value(self, sql: str, **_: Any) -> Any:
        for part, found in self._world.values.items():
            if part in sql:
                return found
        raise AssertionError(f"a query that the test did not expect: {sql}")

    def one(self, sql: str, **_: Any) -> Object:
        assert "last_value" in sql
        return dict(self._world.rows[self.pod])

    def run(self, _sql: str, **_: Any) -> list[str]:
        return []

    def is_in_recovery(self) -> bool:
        return self._world.servers[self.pod].in_recovery

    def pending_restart(self) -> list[str]:
        return self._world.pending

    def hba_rules(self) -> list[HbaRule]:
        return list(self._world.rules)

    def roles(self) -> dict[str, Role]:
        return self._world.roles

    def databases(self) -> dict[str, str]:
        return self._world.databases

    def archiver(self) -> Object:
        return {"last_archived_wal": self._world.archived}


class WorldPostgres(PostgresCluster):
    """The cluster under test, standing still: what is not so now never will be."""

    def __init__(self, world: World) -> None:
        super().__init__(world.kube, "postgres-operator", "hippo")
        self._world = world

    def observe(self, *, sql: bool = False) -> Observation:
        return self._world.seen if sql else dataclasses.replace(self._world.seen, servers={})

    def watched(self, *, sql: bool = False) -> Observation:
        return self.observe(sql=sql)

    def server(self, pod: str) -> Any:
        return WorldServer(self._world, pod)

    def wait(self, accept: Callable[[Observation], bool], **told: Any) -> Observation:
        if not accept(self.observe(sql=told.get("sql", False))):
            raise WaitTimeout(f"waited for {told['what']}", last_seen=str(self._world.seen))
        return self._world.seen


class WorldProbe:
    """An agent that gives the answers it was told."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ask(self, login: Login, sql: str, *, times: int = 1, **_: Any) -> list[Answer]:
        return [self._world.reply(login, sql) for _ in range(times)]

    def ask_all(self, asks: Iterable[tuple[Login, str]], **_: Any) -> list[Answer]:
        return [self._world.reply(login, sql) for login, sql in asks]


class WorldClients:
    """Clients that have written already; what is judged of them is given."""

    def __init__(self) -> None:
        self.again: list[Finding] = [Finding("acknowledged-again-in-time", "holds", "again")]
        self.silent = Finding("strict-mode-blocks", "holds", "nothing")
        self.findings: list[Finding] = []
        self.history: Any = None
        self.mode = "async"
        self.file = Path("/nonexistent")

    def acknowledged_again(
        self,
        _within_s: float,
        paths: Iterable[str] | None = None,
        sessions: Sequence[int] = (),
        *,
        login_retry_s: float | None = None,
    ) -> list[Finding]:
        return self.again

    def finish(self, _pods: Sequence[str]) -> Any:
        return self.history

    def acknowledged_from_now(self, _within_s: float) -> list[Finding]:
        return self.again

    def nothing_acknowledged(self, _for_s: float) -> Finding:
        return self.silent

    def judged(self, _pods: Sequence[str]) -> list[Finding]:
        return self.findings

    def so_far(self) -> Any:
        return self.history

    def mark(self, _name: str) -> int:
        return 0

    def stop(self) -> None:
        return


class World:
    """Everything a step touches. Healthy until a test spoils a part of it."""

    def __init__(self, folder: Path) -> None:
        self.kube = WorldKube()
        self.servers: dict[str, ServerState] = servers()
        pods = list(self.servers)
        self.settings = {pod: dict(SETTINGS) for pod in pods}
        self.values: dict[str, Any] = {
            "standby.signal": True,
            "has_database_privilege": True,
            "pg_size_bytes": True,
            "count(*)": 2000,
            "pg_walfile_name": "000000010000000000000007",
        }
        self.pending: list[str] = []
        self.rules: tuple[HbaRule, ...] = RULES
        plain = {"can_create_databases": False, "can_create_roles": False, "connection_limit": -1}
        self.roles = {
            name: Role(name, True, False, name == "replicator", **plain)  # type: ignore[arg-type]
            for name in ("testuser", "replicator")
        }
        self.databases = {"testdb": "postgres", "postgres": "postgres"}
        self.archived = "000000010000000000000007"
        self.rows = {pod: {"rows": "", "tables": "", "last": 1} for pod in pods}
        self.reply: Reply = lambda _login, _sql: answer()
        self.clients = WorldClients()
        self.observation: Observation | None = None
        self.postgres = WorldPostgres(self)
        identity = ScenarioIdentity("f.feature::S", "F", "", "S")
        self.evidence = ScenarioEvidence(identity, folder)
        self.stage = Stage(
            self.postgres,
            Settings("local"),
            self.evidence,
            lambda: cast(Installed, WorldProbe(self)),
        )
        self.stage._clients = cast(Any, self.clients)
        self.stage.before = self.seen

    @property
    def seen(self) -> Observation:
        """What there is to be seen, with the servers' own word."""
        return self.observation or observe(self.kube, dict(self.servers))

    def pod(self, name: str) -> Object:
        return self.kube.one("Pod", name)

    def change_server(self, pod: str, **changes: Any) -> None:
        """Let one server say something else from now on."""
        self.servers[pod] = dataclasses.replace(self.servers[pod], **changes)

    def answers_with(self, given: Answer) -> None:
        """Let every session end the same way."""
        self.reply = lambda _login, _sql: given

    def operator(self, **changes: Any) -> Operator:
        told: dict[str, Any] = {
            "namespace": "postgres-operator",
            "deployment": "pgo",
            "pod": "pgo-0",
            "pod_uid": "u",
            "image": "pgo:6.0.3",
            "version": "6.0.3",
            "restarts": 0,
            "api_versions": ("v1",),
            "lease_name": None,
            "lease_holder": None,
        }
        return Operator(**{**told, **changes})


def shell(output: str, status: int = 0) -> Callable[[str, Sequence[str], str], ExecResult]:
    """Return what every command prints."""
    return lambda _pod, _command, _stdin: ExecResult(status, output.encode(), b"")
