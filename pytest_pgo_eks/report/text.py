"""Text of others made fit to be shown: scenario names, error messages, whatever a server said.

Escaping for HTML or XML is the views' own; this removes what no format can carry, and what makes
a line look like another one.
"""

from __future__ import annotations

import re

# Control characters but tab and newline, halves of surrogate pairs, the two that XML forbids, and
# what turns the direction of writing around.
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
# A server may answer with a megabyte on one line.
_LONGEST = 2000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def plain(text: str) -> str:
    """Return ``text`` with everything that cannot be shown replaced by U+FFFD; lines stay lines."""
    if _UNSHOWABLE.search(text) is None:
        return text
    return _UNSHOWABLE.sub("\ufffd", _ANSI.sub("", text).replace("\r\n", "\n"))


def line(text: str, most: int = 300) -> str:
    """Return ``text`` on one line of at most ``most`` characters."""
    joined = " ".join(plain(text).split())
    return joined if len(joined) <= most else joined[: most - 1] + "…"


def first_lines(text: str, count: int) -> list[str]:
    """Return the first ``count`` lines that hold something, and one that says what is left."""
    found = [one.rstrip() for one in plain(text).splitlines() if one.strip()]
    more = len(found) - count
    shown = [one if len(one) <= _LONGEST else f"{one[:_LONGEST]}…" for one in found[:count]]
    return [*shown, *([f"… {more} more lines"] if more > 0 else [])]


def seconds(value: float | None) -> str:
    """Return a duration as people read it: ``0.41 s``, ``12.3 s``, ``4 min 5 s``, ``1 h 2 min``."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2f} s"
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def interval(lower_s: float | None, upper_s: float | None) -> str:
    """Return what is known of a duration: ``20.0 to 22.1 s``."""
    if upper_s is None:
        return "not in time" if lower_s is None else f"more than {lower_s:.2f} s"
    if upper_s == 0:
        return "never interrupted"
    if lower_s is None or round(lower_s, 2) == round(upper_s, 2):
        return f"{upper_s:.2f} s"
    return f"{lower_s:.2f} to {upper_s:.2f} s"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 scenario`` or ``3 scenarios``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
