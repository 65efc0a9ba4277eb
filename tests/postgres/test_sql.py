"""Queries, scripts and errors through psql, against a real server."""

from __future__ import annotations

import pytest

from pytest_pgo_eks.errors import ExecProblem, Inconclusive
from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.postgres import ServerView, SqlProblem, lsn_bytes
from pytest_pgo_eks.postgres.sql import identifier, literal, settings_of
from pytest_pgo_eks.secrets import Secret

from .conftest import LocalShell


def test_rows_keep_their_types(view: ServerView) -> None:
    assert view.query(
        "SELECT 1 AS n, 'ä\"''\\n' AS t, true AS b, NULL AS x, ARRAY[1,2] AS a, '0/8031888'::pg_lsn AS l;"
    ) == [{"n": 1, "t": "ä\"'\\n", "b": True, "x": None, "a": [1, 2], "l": "0/8031888"}]
    assert view.query("SELECT 1 WHERE false") == []
    assert view.query("VALUES (1), (2)") == [{"column1": 1}, {"column1": 2}]
    assert view.query("SELECT 7 AS n -- a comment at the end") == [{"n": 7}]
    assert view.value("SELECT E'two\\nlines'") == "two\nlines"


def test_one_value_means_one(view: ServerView) -> None:
    with pytest.raises(ExecProblem, match="2 rows where one"):
        view.value("VALUES (1), (2)")
    with pytest.raises(ExecProblem, match="2 columns where one"):
        view.value("SELECT 1 AS a, 2 AS b")
    with pytest.raises(ExecProblem, match="two columns have one name"):
        view.query("SELECT 1, 2")


def test_a_refusal_carries_its_sqlstate(view: ServerView, replica_view: ServerView) -> None:
    for sql, state in (
        ("SELECT 1/0", "22012"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT 1; SELECT 2", "42601"),
    ):
        with pytest.raises(SqlProblem) as caught:
            view.query(sql)
        assert caught.value.sqlstate == state
        assert "p-0" in str(caught.value)
    with pytest.raises(SqlProblem, match="read-only") as caught:
        replica_view.run("CREATE TABLE t ()")
    assert caught.value.sqlstate == "25006"
    with pytest.raises(SqlProblem, match="statement timeout") as caught:
        view.run("SELECT pg_sleep(60)", deadline_s=1.0)
    assert caught.value.sqlstate == "57014"


def test_a_server_that_takes_no_session_is_no_answer(shell: LocalShell, view: ServerView) -> None:
    with pytest.raises(SqlProblem, match="dead-0: no session") as caught:
        ServerView(shell, "ns", "dead-0").is_in_recovery()
    assert caught.value.sqlstate == "08001"
    assert isinstance(caught.value, Inconclusive)
    with pytest.raises(SqlProblem) as caught:
        view.query("SELECT 1", database="nowhere")
    assert caught.value.sqlstate == "3D000"


def test_a_script_stops_at_its_first_error(view: ServerView) -> None:
    tags = view.run("CREATE TABLE s (n int); INSERT INTO s VALUES (1), (2); TABLE s;")
    assert tags == ["CREATE TABLE", "INSERT 0 2", "1", "2"]
    with pytest.raises(SqlProblem):
        view.run("INSERT INTO s VALUES (3); SELECT 1/0; INSERT INTO s VALUES (4);")
    assert view.query("INSERT INTO s VALUES (5) RETURNING n") == [{"n": 5}]
    assert [row["n"] for row in view.query("SELECT n FROM s ORDER BY n")] == [1, 2, 3, 5]
    view.run("DROP TABLE s")


def test_sql_stands_in_no_command_line(shell: LocalShell, view: ServerView) -> None:
    view.query("SELECT 'on stdin'")
    assert "on stdin" not in " ".join(shell.commands[-1])
    assert "on stdin" in shell.inputs[-1]
    # Servers before Kubernetes 1.30 cannot end standard input.
    assert shell.inputs[-1].endswith("\\q\n")


def test_an_error_shows_no_secret(view: ServerView) -> None:
    secret = Secret("open sesame 123")
    with pytest.raises(SqlProblem) as caught:
        view.run(f"ALTER ROLE nobody PASSWORD {literal(secret)}")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("ran", "error"),
    [
        (ExecResult(0, b"", b""), "no rows in"),
        (ExecResult(0, b"{}", b""), "no rows in"),
        (ExecResult(127, b"", b"env: psql: not found"), "psql ended with 127: env: psql"),
    ],
)
def test_nonsense_is_named(ran: ExecResult, error: str) -> None:
    class Fixed:
        def exec(self, *_: object, **__: object) -> ExecResult:
            return ran

    with pytest.raises(ExecProblem, match=error):
        ServerView(Fixed(), "ns", "p-0").query("SELECT 1")


@pytest.mark.parametrize("text", ["it's", "back\\slash", "a\nb", "€", ""])
def test_constants_and_identifiers_are_quoted(view: ServerView, text: str) -> None:
    assert view.value(f"SELECT {literal(text)}") == text
    name = text + '"x'
    assert view.query(f"SELECT 1 AS {identifier(name)}") == [{name: 1}]


def test_lsns_are_byte_positions() -> None:
    assert lsn_bytes("0/8031888") == 134420616
    assert lsn_bytes("1/0") == 1 << 32
    assert lsn_bytes(None) is None
    with pytest.raises(ValueError, match="invalid literal"):
        lsn_bytes("nonsense")


def test_parameters_are_shown_as_the_server_shows_them() -> None:
    assert settings_of({"a": True, "b": False, "c": 5}) == {"a": "on", "b": "off", "c": "5"}
