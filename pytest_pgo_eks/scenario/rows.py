"""Rows that a scenario writes and looks for, and statements that a replica has to refuse."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube.wait import eventually, holds
from pytest_pgo_eks.postgres.sql import identifier
from pytest_pgo_eks.probe.plan import Answer
from pytest_pgo_eks.scenario.stage import Stage

# Rows in order, tables, position of the sequence.
State = tuple[str, str, int]

# For a write under remote_apply and a read, of which a healthy cluster makes hundreds a second.
_PAIR_S = 0.5

NAMES = ("Ada", "Edgar", "Grace", "Michael", "Radia")

# As the pattern has it (row S12), in a schema of the scenario's own.
_CUSTOMERS = (
    "CREATE TABLE {schema}.customers "
    "(firstname text, customer_id serial, date_created timestamp DEFAULT now())"
)
# Each leaves a trace if it is let through; DELETE and UPDATE change the one row that is there.
_STATEMENTS = {
    "INSERT": "INSERT INTO {schema}.customers (firstname) VALUES ('trace')",
    "UPDATE": "UPDATE {schema}.customers SET firstname = 'trace'",
    "DELETE": "DELETE FROM {schema}.customers",
    "CREATE TABLE": "CREATE TABLE {schema}.trace (n int)",
    "nextval()": "SELECT nextval('{schema}.customers_customer_id_seq')",
    "SELECT … FOR UPDATE": "SELECT * FROM {schema}.customers FOR UPDATE",
}
# What a server holds of the scenario: rows in order, relations, and the sequence's position.
_STATE = (
    "SELECT (SELECT string_agg(customer_id || ' ' || firstname, ',' ORDER BY customer_id) "
    "FROM {schema}.customers) AS rows, (SELECT string_agg(relname, ',' ORDER BY relname) "
    "FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r') AS tables, "
    "(SELECT last_value FROM {schema}.customers_customer_id_seq) AS last"
)


class Rows:
    """A schema of its own for one scenario, dropped at its end."""

    def __init__(self, stage: Stage) -> None:
        self.schema = f"pgo_rows_{uuid.uuid4().hex[:8]}"
        self._stage = stage
        self._database = stage.targets.application.databases[0]
        self.refusal: Answer | None = None
        self._given: dict[str, State] = {}
        self._many = 0
        stage.later(self._drop)
        self.write(f"CREATE SCHEMA {self.schema}")

    def write(self, sql: str, **options: str) -> Answer:
        """Run statements through the primary Service, as the application.

        :raises Violation: the primary Service did not let the application write.
        """
        login = self._stage.targets.from_secret(options=options)
        (answer,) = self._stage.probe.ask(login, sql)
        if not answer.ok:
            raise Violation(f"writing through the primary Service: {answer.code} {answer.message}")
        return answer

    def write_customers(self) -> None:
        """Create the pattern's table and write its customers."""
        values = ", ".join(f"('{name}')" for name in NAMES)
        self.write(
            f"{_CUSTOMERS.format(schema=self.schema)}; "
            f"INSERT INTO {self.schema}.customers (firstname) VALUES {values}"
        )

    def customers_on_replicas(self, within_s: float) -> Finding:
        """Wait until the replicas Service shows the customers that were written."""
        sql = (
            "SELECT pg_is_in_recovery(), (SELECT string_agg(firstname, ',' ORDER BY customer_id) "
            f"FROM {self.schema}.customers)"
        )
        login = self._stage.targets.service("replicas")

        def look() -> tuple[str, str]:
            (answer,) = self._stage.probe.ask(login, sql)
            return (
                (answer.rows[0][0] or "", answer.rows[0][1] or "")
                if answer.ok
                else ("", f"{answer.code} {answer.message}")
            )

        eventually(
            look,
            accept=lambda seen: seen == ("t", ",".join(NAMES)),
            within_s=within_s,
            what="the written customers to be read through the replicas Service",
        )
        sentence = f"{len(NAMES)} customers written on the primary are read on replicas"
        return Finding("read-on-replicas", "holds", sentence, {"rows": len(NAMES)})

    def try_on_replica(self, statement: str) -> None:
        """Try one of the known statements through the replicas Service."""
        if statement not in _STATEMENTS:
            raise Inconclusive(f"no statement is called {statement!r}")
        self.write_customers()
        self._given = self._everywhere(within_s=self._stage.timeouts["replication"])
        login = self._stage.targets.service("replicas")
        (self.refusal,) = self._stage.probe.ask(
            login, _STATEMENTS[statement].format(schema=self.schema)
        )

    def demand_refused(self, sqlstate: str) -> Finding:
        """Demand that the last statement was refused with this SQLSTATE."""
        answer = self.refusal
        if answer is None:
            raise Inconclusive("no statement was tried")
        if answer.ok:
            raise Violation("a replica let the statement through")
        if answer.stage == "connect":
            raise Inconclusive(f"no replica could be asked: {answer.code} {answer.message}")
        if answer.code != sqlstate:
            raise Violation(f"refused with {answer.code} {answer.message}, expected {sqlstate}")
        return Finding(
            "replica-refuses-writes", "holds", f"refused with {sqlstate}: {answer.message}"
        )

    def demand_no_trace(self, for_s: float) -> Finding:
        """Watch that every server holds just what it held before the statement."""
        holds(
            self._states,
            accept=lambda seen: seen == self._given,
            for_s=for_s,
            what="every server holding just what was written",
        )
        sentence = f"no server shows a trace for {for_s:g} s"
        return Finding("refused-write-leaves-nothing", "holds", sentence, {"for_s": for_s})

    def _everywhere(self, within_s: float) -> dict[str, State]:
        """Wait until every server holds the customers; return what each holds.

        The position of a sequence differs between servers that are equal: 32 values ahead are
        logged at once, and a replica shows the logged one.
        """
        rows = ",".join(f"{number} {name}" for number, name in enumerate(NAMES, 1))
        return eventually(
            self._states,
            accept=lambda seen: (
                bool(seen) and all(state[:2] == (rows, "customers") for state in seen.values())
            ),
            within_s=within_s,
            what="every server to hold the customers",
        )

    def write_many(self, count: int) -> None:
        """Write ``count`` rows into a table of their own."""
        self._many = count
        self.write(
            f"CREATE TABLE IF NOT EXISTS {self.schema}.many (n int); "
            f"INSERT INTO {self.schema}.many SELECT generate_series(1, {count})"
        )

    def many_replayed(self, within_s: float) -> Finding:
        """Wait until every replica shows the rows of :meth:`write_many`."""
        replicas, count = self._replicas(), self._many

        def look() -> dict[str, int]:
            return {
                pod: int(
                    self._stage.postgres.server(pod).value(
                        f"SELECT count(*) FROM {self.schema}.many",
                        database=self._database,
                    )
                )
                for pod in replicas
            }

        eventually(
            look,
            accept=lambda seen: set(seen.values()) == {count},
            within_s=within_s,
            what=f"{count} rows on every replica",
        )
        sentence = f"{count} rows were replayed on {len(replicas)} replicas"
        return Finding("replicas-catch-up", "holds", sentence, {"rows": count})

    def read_your_writes(self, pod: str, count: int) -> Finding:
        """Write rows under ``remote_apply``, read each at once on ``pod``; judge what was seen."""
        schema = self.schema
        self.write(f"CREATE TABLE {schema}.seen (n int PRIMARY KEY)")
        writer = self._stage.targets.from_secret(options={"synchronous_commit": "remote_apply"})
        reader = self._stage.targets.instance(pod)
        pairs = [
            (
                f"INSERT INTO {schema}.seen VALUES ({number})",
                f"SELECT count(*) FROM {schema}.seen WHERE n = {number}",
            )
            for number in range(count)
        ]
        told = self._stage.probe.relay(writer, reader, pairs, deadline_s=_PAIR_S * count)
        missed, unclear = [], []
        for number, (wrote, read) in enumerate(told):
            if read is None:
                unclear.append(f"row {number}: {wrote.code} {wrote.message} {wrote.notices}")
            elif not read.ok:
                unclear.append(f"row {number}: {read.code} {read.message}")
            elif read.rows[0][0] != "1":
                missed.append(f"row {number} was acknowledged and not seen on {pod}")
        rule = "read-your-writes-under-remote-apply"
        numbers = {"rows": count, "missed": len(missed), "unclear": len(unclear)}
        if missed:
            sentence = f"{len(missed)} of {count} acknowledged rows were not visible"
            return Finding(rule, "violated", sentence, numbers, tuple(missed))
        if unclear:
            sentence = f"{len(unclear)} of {count} rows could not be written or read"
            return Finding(rule, "unknown", sentence, numbers, tuple(unclear))
        return Finding(rule, "holds", f"all {count} rows were visible at once on {pod}", numbers)

    def _states(self) -> dict[str, State]:
        found: dict[str, State] = {}
        for one in self._stage.postgres.observe().instances:
            server = self._stage.postgres.server(one.pod)
            row = server.one(_STATE.format(schema=self.schema), database=self._database)
            found[one.pod] = (row["rows"] or "", row["tables"] or "", int(row["last"]))
        return found

    def _replicas(self) -> Sequence[str]:
        seen = self._stage.postgres.observe(sql=True)
        found = [pod for pod, server in seen.servers.items() if server.in_recovery]
        if not found:
            raise Inconclusive(f"no server is in recovery:\n  {seen}")
        return found

    def _drop(self) -> None:
        seen = self._stage.postgres.observe(sql=True)
        for pod in seen.writable:
            self._stage.postgres.server(pod).run(
                f"DROP SCHEMA IF EXISTS {identifier(self.schema)} CASCADE", database=self._database
            )
