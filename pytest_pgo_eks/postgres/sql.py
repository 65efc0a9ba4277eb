"""SQL through psql in an instance's ``database`` container, over its socket, as ``postgres``.

No network, no password and no pooler in between: what a server says here is its own word. Never
for timing, each call starts two processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.secrets import filtered

Row = dict[str, Any]

CONTAINER = "database"
# psql reports no SQLSTATE for what ends a login; these are the server's fixed words for it.
_LOGIN_STATES = (
    ("the database system is starting up", "57P03"),
    ("the database system is shutting down", "57P03"),
    ("the database system is in recovery mode", "57P03"),
    ("the database system is not yet accepting connections", "57P03"),
    ("sorry, too many clients already", "53300"),
    ("remaining connection slots are reserved", "53300"),
    ("does not exist", "3D000"),
    ("No such file or directory", "08001"),
    ("Connection refused", "08001"),
)
_ERROR = re.compile(
    r"^(?:psql:[^\n]*?: )?(?P<level>ERROR|FATAL|PANIC): {1,2}(?P<state>[0-9A-Z]{5}): (?P<text>.*)$",
    re.MULTILINE,
)
_PSQL = (
    "psql",
    "--no-psqlrc",
    "--no-password",
    "--no-align",
    "--tuples-only",
    "--username=postgres",
    "--set=ON_ERROR_STOP=on",
    "--set=VERBOSITY=verbose",
    "--file=-",
)


class Ran(Protocol):
    """How a command ended."""

    @property
    def exit_status(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Shell(Protocol):
    """What SQL needs of :class:`pytest_pgo_eks.kube.Kube`."""

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        stdin: bytes | str | None = None,
        deadline_s: float = 30.0,
    ) -> Ran: ...


class SqlProblem(ExecProblem):
    """The server refused a statement, or the session. ``sqlstate`` is empty when it is unknown."""

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Psql:
    """psql in one instance pod."""

    def __init__(
        self, shell: Shell, namespace: str, pod: str, *, container: str = CONTAINER
    ) -> None:
        self.pod = pod
        self.namespace = namespace
        self._shell = shell
        self._container = container

    def query(self, sql: str, *, database: str = "postgres", deadline_s: float = 10.0) -> list[Row]:
        """Return the rows of one ``SELECT``, ``VALUES``, ``TABLE``, or of DML with ``RETURNING``.

        Values are as JSON has them: numbers, strings, booleans, None, and lists and mappings for
        arrays and JSON columns; timestamps are ISO 8601 strings, LSNs are ``X/Y`` strings.

        :raises SqlProblem: refused; several statements in one are, as a syntax error.
        :raises ExecProblem: psql did not run to its end.
        """
        # A data-modifying statement may stand in WITH only; the line end closes a comment.
        body = sql.strip().rstrip(";")
        wrapped = f"WITH q AS ({body}\n) SELECT coalesce(json_agg(q), '[]')::text FROM q;"  # noqa: S608
        said = self._run(wrapped, database, deadline_s)
        try:
            rows = json.loads(said, object_pairs_hook=self._row)
        except ValueError as error:
            raise ExecProblem(f"{self._what(sql)}: no rows in: {filtered(said[:200])!r}") from error
        if not isinstance(rows, list):
            raise ExecProblem(f"{self._what(sql)}: no rows in: {filtered(said[:200])!r}")
        return rows

    def one(self, sql: str, *, database: str = "postgres", deadline_s: float = 10.0) -> Row:
        """Return the only row of a query.

        :raises ExecProblem: there was none, or more than one.
        """
        rows = self.query(sql, database=database, deadline_s=deadline_s)
        if len(rows) != 1:
            raise ExecProblem(f"{self._what(sql)}: {len(rows)} rows where one was expected")
        return rows[0]

    def value(self, sql: str, *, database: str = "postgres", deadline_s: float = 10.0) -> Any:
        """Return the only value of the only row of a query."""
        row = self.one(sql, database=database, deadline_s=deadline_s)
        if len(row) != 1:
            raise ExecProblem(f"{self._what(sql)}: {len(row)} columns where one was expected")
        return next(iter(row.values()))

    def run(
        self, script: str, *, database: str = "postgres", deadline_s: float = 30.0
    ) -> list[str]:
        """Run statements one after the other in one session; stop at the first that fails.

        Each is a transaction of its own unless the script says otherwise. Returns what psql
        printed, by line: command tags (``CREATE TABLE``) and rows.

        :raises SqlProblem: one was refused; those before it have happened.
        """
        return self._run(script, database, deadline_s).splitlines()

    def setting(self, name: str) -> str:
        """Return a setting as ``SHOW`` prints it, with its unit."""
        return str(self.value(f"SELECT current_setting({literal(name)}) AS value"))

    def _run(self, script: str, database: str, deadline_s: float) -> str:
        # The statement ends before the exec does, or the server would go on with it alone.
        limit_ms = max(int(deadline_s * 1000) - 500, 100)
        command = [
            "env",
            f"PGCONNECT_TIMEOUT={max(int(deadline_s), 2)}",
            f"PGOPTIONS=-c statement_timeout={limit_ms} -c client_encoding=UTF8",
            "PGAPPNAME=pytest-pgo-eks",
            *_PSQL,
            f"--dbname={database}",
        ]
        # Quits by itself: servers before Kubernetes 1.30 cannot end standard input.
        ran = self._shell.exec(
            self.namespace,
            self.pod,
            command,
            container=self._container,
            stdin=f"{script}\n\\q\n",
            deadline_s=deadline_s,
        )
        errors = ran.stderr.decode("utf-8", "replace")
        if ran.exit_status != 0:
            raise self._problem(script, ran.exit_status, errors)
        return ran.stdout.decode("utf-8", "replace")

    def _row(self, pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) != len(pairs):
            raise ExecProblem(
                f"{self.pod}: two columns have one name: {[name for name, _ in pairs]}"
            )
        return row

    def _problem(self, script: str, status: int, errors: str) -> ExecProblem:
        found = _ERROR.search(errors)
        if found is not None:
            text = f"{found['level']} {found['state']}: {found['text']}"
            return SqlProblem(f"{self._what(script)}: {filtered(text)}", sqlstate=found["state"])
        said = filtered(" ".join(errors.split()))[:400] or "nothing on standard error"
        if status == 2:
            state = next((code for words, code in _LOGIN_STATES if words in errors), "")
            return SqlProblem(f"{self.pod}: no session: {said}", sqlstate=state)
        return ExecProblem(f"{self._what(script)}: psql ended with {status}: {said}")

    def _what(self, sql: str) -> str:
        words = " ".join(sql.split())
        return f"{self.pod}: {filtered(words if len(words) <= 100 else words[:97] + '...')}"


def literal(text: str) -> str:
    """Quote ``text`` as a string constant, whatever ``standard_conforming_strings`` says."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote ``name`` as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def lsn_bytes(lsn: str | None) -> int | None:
    """Return an LSN such as ``0/8031888`` as a byte position; None stays None.

    :raises ValueError: it is no LSN.
    """
    if lsn is None:
        return None
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def settings_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return Patroni's or a manifest's parameters as strings, booleans as PostgreSQL shows them."""
    shown = {True: "on", False: "off"}
    return {
        name: shown[value] if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
