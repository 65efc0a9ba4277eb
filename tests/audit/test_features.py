"""The features ask every check once, by a title that exists, and tag rows as the pattern does."""

from __future__ import annotations

import re

from pytest_pgo_eks.audit.catalogue import AUDIT, ROWS
from pytest_pgo_eks.shipped import features


def _words(name: str) -> str:
    return (features() / name).read_text("utf-8")


def _asked(text: str, pattern: str) -> list[str]:
    """Return the titles of a feature's sentences, outlines with their rows filled in."""
    found = []
    for title in re.findall(pattern, text):
        if "<" not in title:
            found.append(title)
            continue
        column = title.strip("<>")
        rows = text.split(f"| {column}", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
        found += [row.strip().strip("|").strip() for row in rows if row.strip().startswith("|")]
    return found


def test_every_row_is_a_scenario() -> None:
    titles = _asked(_words("eks/pattern.feature"), r"Then (.+) (?:is|are) as the pattern asks")
    assert sorted(titles) == sorted(check.title for check in ROWS)


def test_every_check_of_the_audit_is_a_scenario() -> None:
    titles = _asked(_words("security/eks.feature"), r"Then the audit finds that (.+)")
    assert sorted(titles) == sorted(check.title for check in AUDIT)


def test_rows_carry_their_tags() -> None:
    text = _words("eks/pattern.feature")
    tagged = set(re.findall(r"@(S\d+)", text))
    assert tagged == {check.identifier.partition(".")[0] for check in ROWS}
