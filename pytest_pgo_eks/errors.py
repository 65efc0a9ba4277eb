"""Every error this project raises on purpose.

::

    PgoEksError
    ├── UsageProblem (ValueError)            bad input: one line, exit status 4, nothing created
    ├── Violation (AssertionError)           a promise was broken: the verdict is "violation"
    └── Inconclusive (RuntimeError)          the run cannot say: the verdict is "inconclusive"
        ├── ClusterProblem                   a provider could not make, find or remove a cluster
        ├── ApiProblem                       the Kubernetes API refused, vanished or answered nonsense
        │   ├── NotFound (LookupError)       404
        │   └── Conflict                     409; names the other field manager where there is one
        ├── ExecProblem                      a command in a container did not run to its end
        ├── WaitTimeout (TimeoutError)       a wait ended without what it waited for
        ├── FaultNotProven                   a fault was injected and left no effect
        ├── BrokenHistory                    a history has a hole, so it proves nothing
        └── NotPermitted                     the run was told not to: the scenario is skipped

The class alone separates a violation from infrastructure trouble, with one exception that
:mod:`pytest_pgo_eks.report.verdict` owns: a :class:`WaitTimeout` in a Then-step whose last look
*succeeded* and saw the wrong state is a violation, because the promise was observed to be broken.

A message says what was expected, what was seen last, how long we waited, and what to do next.
"""

from __future__ import annotations


class PgoEksError(Exception):
    """Root of the tree."""


class UsageProblem(PgoEksError, ValueError):
    """The user's input cannot work. Ends the run with one line and exit status 4."""


class Violation(PgoEksError, AssertionError):
    """What PGO, Patroni or PostgreSQL promise under the declared settings did not hold."""


class Inconclusive(PgoEksError, RuntimeError):
    """Infrastructure or the harness failed before anything could be judged."""


class ClusterProblem(Inconclusive):
    """A provider could not make, find or remove its cluster."""


class ApiProblem(Inconclusive):
    """The Kubernetes API refused a request, or could not be reached.

    ``status`` is the HTTP status, or 0 when there was no answer; ``reason`` is the API's word for
    it (``Forbidden``, ``Expired`` …), empty when there was none.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class NotFound(ApiProblem, LookupError):
    """The object does not exist (404)."""


class Conflict(ApiProblem):
    """Somebody else changed or owns what we wanted to write (409)."""


class ExecProblem(Inconclusive):
    """A command inside a container did not run to its end: cut stream, deadline, no such binary."""


class WaitTimeout(Inconclusive, TimeoutError):
    """A wait ended without what it waited for.

    ``last_seen`` is a printable form of the last state; ``looked`` is False when the last look
    itself failed, so that nobody mistakes "could not see" for "saw that it is not so".
    """

    def __init__(self, message: str, *, last_seen: str = "", looked: bool = True) -> None:
        super().__init__(message)
        self.last_seen = last_seen
        self.looked = looked


class FaultNotProven(Inconclusive):
    """A fault was injected but no effect of it was seen, so nothing after it means anything."""


class BrokenHistory(Inconclusive):
    """A history lacks records that must exist, or cannot be read."""


class NotPermitted(Inconclusive):
    """The scenario would change what this run only looks at; it is skipped with this reason."""
