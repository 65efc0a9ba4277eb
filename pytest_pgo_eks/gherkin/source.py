"""Reads one feature file's text and finds what pytest-bdd would drop or misread in silence.

Every rule here is a check that would otherwise be lost: of two scenarios of one name pytest-bdd
keeps the last, a misspelt ``Scenari:`` is prose, a scenario without steps passes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gherkin.dialect import Dialect
from gherkin.errors import CompositeParserException, ParserError
from gherkin.parser import Parser

from pytest_pgo_eks.settings import nearest

Node = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Problem:
    """One finding of the audit; ``line`` counts from 1."""

    line: int
    text: str


# Words that begin an honest sentence and are one letter from a step keyword.
_PLAIN_WORDS = frozenset(
    [
        "the",
        "an",
        "any",
        "ant",
        "end",
        "out",
        "but",
        "bus",
        "put",
        "cut",
        "where",
        "what",
        "they",
        "them",
        "this",
        "than",
        "thin",
        "give",
        "gives",
    ]
)
_MEANT = "did you mean"
_PLACEHOLDER = re.compile(r"<([^<>]+)>")


def problems(path: Path, known_tags: frozenset[str]) -> tuple[list[Problem], bool]:
    """Return everything wrong with the text of the file, by line, and whether it could be parsed."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        return [Problem(1, f"the file is not UTF-8: {error.reason} at byte {error.start}")], False
    if not text.strip():
        return [Problem(1, "the file is empty")], False
    try:
        document: Any = Parser().parse(text)
    except CompositeParserException as error:
        return _without_consequences(sorted(_syntax(inner) for inner in error.errors)), False
    except ParserError as error:
        return [_syntax(error)], False
    feature = document.get("feature")
    if not feature:
        return [Problem(1, "there is no Feature: in it")], False
    return sorted(set(_of_feature(feature, known_tags, text.splitlines()))), True


def _syntax(error: Any) -> Problem:
    line = int((getattr(error, "location", None) or {}).get("line") or 1)
    text = re.sub(r"^\(\d+:\d+\): ", "", str(error))
    # The parser lists the tokens it could have used, which helps nobody who mistyped one.
    if found := re.search(r", got '(.*)'$", text):
        dialect: Any = Dialect.for_name("en")
        typo = _structure_typo(found[1], _structure(dialect)) or _step_typo(
            found[1], _steps(dialect)
        )
        text = f"{found[1]!r} cannot stand here" + (f": {typo}" if typo else "")
    return Problem(line, f"not Gherkin: {text}")


def _without_consequences(found: list[Problem]) -> list[Problem]:
    """Drop what only follows from a mistyped keyword: every sound line behind it is misplaced."""
    first = next((n for n, one in enumerate(found) if _MEANT in one.text), len(found))
    return [one for n, one in enumerate(found) if n <= first or _MEANT in one.text]


def _structure(dialect: Any) -> list[str]:
    return [
        *dialect.rule_keywords,
        *dialect.background_keywords,
        *dialect.scenario_keywords,
        *dialect.scenario_outline_keywords,
        *dialect.examples_keywords,
    ]


def _steps(dialect: Any) -> list[str]:
    kinds = (
        dialect.given_keywords,
        dialect.when_keywords,
        dialect.then_keywords,
        dialect.and_keywords,
        dialect.but_keywords,
    )
    return [word.strip() for words in kinds for word in words if word.strip() != "*"]


def _of_feature(feature: Node, known_tags: frozenset[str], lines: list[str]) -> Iterator[Problem]:
    dialect: Any = Dialect.for_name(feature["language"])
    if not feature["name"].strip():
        yield Problem(feature["location"]["line"], "the feature has no name")
    sections = list(_sections(feature))
    for section, kind in sections:
        yield from _misspelt(section, kind, dialect, lines)
        yield from _unknown_tags(section, known_tags)
    scenarios = [section for section, kind in sections if kind == "scenario"]
    if not scenarios:
        yield Problem(feature["location"]["line"], "there is no scenario in it")
    yield from _names(scenarios)
    for scenario in scenarios:
        yield from _outline(scenario, dialect)
        if not scenario["steps"]:
            yield Problem(
                scenario["location"]["line"],
                f"scenario {scenario['name']!r} has no steps: it could only pass",
            )


def _sections(feature: Node) -> Iterator[tuple[Node, str]]:
    yield feature, "feature"
    for child in feature["children"]:
        if rule := child.get("rule"):
            yield rule, "rule"
            for inner in rule["children"]:
                yield from _leaf(inner)
        else:
            yield from _leaf(child)


def _leaf(child: Node) -> Iterator[tuple[Node, str]]:
    if background := child.get("background"):
        yield background, "background"
    if scenario := child.get("scenario"):
        yield scenario, "scenario"
        for examples in scenario.get("examples", ()):
            yield examples, "examples"


def _names(scenarios: list[Node]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for scenario in scenarios:
        name, line = scenario["name"], scenario["location"]["line"]
        if not name.strip():
            yield Problem(line, "the scenario has no name, so nobody can address it")
        elif bad := next((part for part in ("::", "[", "]") if part in name), None):
            yield Problem(
                line, f"scenario name {name!r} contains {bad!r}, so a node id cannot address it"
            )
        elif name in first:
            yield Problem(
                line,
                f"scenario name {name!r} is already used in line {first[name]}; only one of the "
                "two would run",
            )
        first.setdefault(name, line)


def _outline(scenario: Node, dialect: Any) -> Iterator[Problem]:
    line, name = scenario["location"]["line"], scenario["name"]
    tables = scenario.get("examples", ())
    rows = [row for table in tables for row in table.get("tableBody", ())]
    keyword = scenario["keyword"].strip()
    # In English a bare "Example" is a scenario; only what is no plain scenario's keyword counts.
    only_outline = keyword in dialect.scenario_outline_keywords
    if (tables or only_outline) and not rows:
        yield Problem(line, f"outline {name!r} has no row of examples, so it would never run")
        return
    for table in tables:
        columns = {cell["value"] for cell in (table.get("tableHeader") or {}).get("cells", ())}
        for step in scenario["steps"]:
            for placeholder in _PLACEHOLDER.findall(step["text"]):
                if columns and placeholder not in columns:
                    yield Problem(
                        step["location"]["line"],
                        f"<{placeholder}> is no column of the examples in line "
                        f"{table['location']['line']}{nearest(placeholder, columns)}",
                    )
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        values = tuple(cell["value"] for cell in row["cells"])
        if values in seen:
            yield Problem(
                row["location"]["line"],
                f"the row repeats line {seen[values]}, so a node id cannot address it",
            )
        seen.setdefault(values, row["location"]["line"])


def _unknown_tags(section: Node, known_tags: frozenset[str]) -> Iterator[Problem]:
    for tag in section.get("tags", ()):
        name = tag["name"].removeprefix("@")
        if name not in known_tags:
            yield Problem(
                tag["location"]["line"],
                f"tag @{name} is not registered{nearest(name, known_tags)}; register it in the "
                "markers of your pytest configuration if it is yours",
            )


def _misspelt(section: Node, kind: str, dialect: Any, lines: list[str]) -> Iterator[Problem]:
    description = section.get("description") or ""
    if not description.strip():
        return
    structure, steps = _structure(dialect), _steps(dialect)
    # The parser keeps a description's text but neither its line numbers nor blank and comment lines
    # around it, so each line is looked for from where the last one was.
    number = int(section["location"]["line"])
    for prose in filter(None, map(str.strip, description.splitlines())):
        number = next(
            (n for n in range(number + 1, len(lines) + 1) if lines[n - 1].strip() == prose), number
        )
        found = _structure_typo(prose, structure)
        if not found and kind in {"scenario", "background"}:
            found = _step_typo(prose, steps)
        if found:
            yield Problem(number, f"{prose!r} reads as prose: {found}")


def _structure_typo(text: str, keywords: list[str]) -> str | None:
    head, colon, _ = text.partition(":")
    if not colon or len(head.split()) > 2 or not head or head.strip() in keywords:
        return None
    close = difflib.get_close_matches(head.strip().title(), keywords, n=1, cutoff=0.75)
    return f"{_MEANT} {close[0]!r} instead of {head.strip()!r}?" if close else None


def _step_typo(text: str, keywords: list[str]) -> str | None:
    words = text.split(maxsplit=1)
    if len(words) < 2 or words[0].lower() in _PLAIN_WORDS or words[0] in keywords:
        return None
    close = difflib.get_close_matches(words[0].title(), keywords, n=1, cutoff=0.75)
    return f"{_MEANT} {close[0]!r} instead of {words[0]!r}?" if close else None
