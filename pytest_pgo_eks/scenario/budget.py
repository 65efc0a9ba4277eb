"""Times as sentences say them: “20 seconds”, “2 minutes”, “a lease and 15 seconds”.

A lease is what the PostgresCluster declares (``leaderLeaseDurationSeconds``), so a budget that names
one follows the settings instead of habit: after a leader vanished, the others wait until its lease
ends as *they* saw it, and act in their next loop (a sync period).
"""

from __future__ import annotations

import re

from pytest_pgo_eks.errors import UsageProblem

# What a sentence may say, for step parsers.
PATTERN = (
    r"(?:(?:a|an|one|two|three|\d+(?:\.\d+)?) "
    r"(?:second|minute|hour|lease|sync period)s?(?: and )?)+"
)

_WORDS = {"a": 1.0, "an": 1.0, "one": 1.0, "two": 2.0, "three": 3.0}
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
_PART = re.compile(r"(?P<count>[a-z]+|\d+(?:\.\d+)?) (?P<unit>[a-z ]+?)s?$")


def seconds(text: str, *, lease_s: float, sync_period_s: float) -> float:
    """Return the seconds that ``text`` names.

    :raises UsageProblem: it names none.

    >>> seconds("a lease and 15 seconds", lease_s=20, sync_period_s=2)
    35.0
    """
    units = {**_UNITS, "lease": lease_s, "sync period": sync_period_s}
    total = 0.0
    for part in text.strip().split(" and "):
        found = _PART.match(part.strip())
        count = found and (_WORDS.get(found["count"]) or _number(found["count"]))
        if not found or count is None or found["unit"] not in units:
            raise UsageProblem(
                f"{text!r} is no time: write it like “20 seconds”, “2 minutes” or "
                "“a lease and 15 seconds”"
            )
        total += count * units[found["unit"]]
    return total


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
