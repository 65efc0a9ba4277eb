"""Who is let in, asked from another pod of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Answer, Login

_WHO = (
    "SELECT current_user, rolsuper, pg_is_in_recovery() FROM pg_roles WHERE rolname = current_user"
)
# 28000 and 28P01: the server spoke and refused; no-tls: it refuses to encrypt; certificate: TLS
# itself asked for one. Everything else (refused, timeout …) is not an answer about access.
_REFUSED = frozenset({"28000", "28P01", "no-tls", "certificate"})


@dataclass(frozen=True)
class Attempt:
    """One attempt to log in at one server, and what came of it."""

    server: str
    answer: Answer

    def __str__(self) -> str:
        if self.answer.ok:
            user, superuser, recovery = self.answer.rows[0]
            power = "SUPERUSER " if superuser == "t" else ""
            where = "replica" if recovery == "t" else "primary"
            return f"{self.server} ({where}): logged in as {power}{user}"
        return f"{self.server}: {self.answer.code} {self.answer.message}"


def attempts(installed: Installed, logins: Mapping[str, Login]) -> list[Attempt]:
    """Try each login once; ``logins`` are by the server's name."""
    answers = installed.ask_all([(login, _WHO) for login in logins.values()])
    return [Attempt(name, answer) for name, answer in zip(logins, answers, strict=True)]


def refused(tried: Sequence[Attempt], who: str) -> Finding:
    """Judge that nobody was let in: every server has to have said no.

    An attempt that did not reach its server says nothing, so it makes the finding unknown.

    :raises Inconclusive: nothing was tried.
    """
    if not tried:
        raise Inconclusive(f"no attempt was made to log in {who}")
    let_in = [attempt for attempt in tried if attempt.answer.stage != "connect"]
    unclear = [
        attempt
        for attempt in tried
        if attempt.answer.stage == "connect" and attempt.answer.code not in _REFUSED
    ]
    numbers = {"servers": len(tried), "let_in": len(let_in)}
    told = tuple(str(attempt) for attempt in [*let_in, *unclear, *tried])[: len(tried)]
    if let_in:
        sentence = f"{who} was let in at {len(let_in)} of {len(tried)} servers"
        return Finding("no-login-without-credential", "violated", sentence, numbers, told)
    if unclear:
        sentence = f"whether {who} would be let in could not be asked at {len(unclear)} servers"
        return Finding("no-login-without-credential", "unknown", sentence, numbers, told)
    sentence = f"{who} was refused at all {len(tried)} servers"
    return Finding("no-login-without-credential", "holds", sentence, numbers, told)
