"""Which server answers on a path, over many new connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Answer, Login

# host() drops the mask; the address is the pod's own, whatever Service led there. A pooler reports
# the server behind it, because the question is answered by that server.
WHO = "SELECT host(inet_server_addr()), pg_is_in_recovery()"


@dataclass(frozen=True)
class Arrival:
    """Where one connection arrived: the server's address, and whether it is in recovery."""

    address: str
    in_recovery: bool


def arrivals(installed: Installed, login: Login, times: int) -> list[Arrival]:
    """Connect ``times`` times, each a new session; return where each arrived.

    :raises Violation: a connection was not served.
    """
    answers = installed.ask(login, WHO, times=times)
    failed = [answer for answer in answers if not answer.ok]
    if failed:
        raise Violation(
            f"{len(failed)} of {times} connections to {_host(login)} were not served: "
            f"{_first(failed)}"
        )
    return [Arrival(str(row[0]), row[1] == "t") for answer in answers for row in answer.rows]


def only_at(seen: Sequence[Arrival], path: str, address: str) -> None:
    """Demand that every connection arrived at one address, which takes writes."""
    if not seen:
        raise Inconclusive(f"no connection was made through {path}")
    wrong = Counter(arrival for arrival in seen if arrival != Arrival(address, in_recovery=False))
    if wrong:
        raise Violation(
            f"{sum(wrong.values())} of {len(seen)} connections through {path} did not arrive at "
            f"the primary {address} but at {_told(wrong)}"
        )


def only_replicas(seen: Sequence[Arrival], path: str) -> None:
    """Demand that every connection arrived at a server in recovery."""
    if not seen:
        raise Inconclusive(f"no connection was made through {path}")
    wrong = Counter(arrival for arrival in seen if not arrival.in_recovery)
    if wrong:
        raise Violation(
            f"{sum(wrong.values())} of {len(seen)} connections through {path} arrived at a "
            f"primary: {_told(wrong)}"
        )


def all_reached(seen: Sequence[Arrival], path: str, addresses: Collection[str]) -> None:
    """Demand that every one of ``addresses`` was reached.

    With n replicas and k connections spread evenly at random, the chance to miss one of them is at
    most n·(1-1/n)^k: for two and sixty it is 10^-18.
    """
    missed = set(addresses) - {arrival.address for arrival in seen}
    if missed:
        raise Violation(
            f"{len(seen)} connections through {path} never reached {', '.join(sorted(missed))}"
        )


def _told(wrong: Counter[Arrival]) -> str:
    return ", ".join(
        f"{arrival.address} ({'in recovery' if arrival.in_recovery else 'a primary'}, {count}×)"
        for arrival, count in wrong.most_common()
    )


def _first(failed: Sequence[Answer]) -> str:
    return f"{failed[0].code} {failed[0].message} (at {failed[0].stage})"


def _host(login: Login) -> str:
    return ", ".join(f"{host}:{port}" for host, port in login.hosts)
