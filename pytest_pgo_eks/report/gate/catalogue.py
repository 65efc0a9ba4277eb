"""Which scenarios there are, from the feature files: what a policy may require, and who is missing.

Read without collecting anything, so that a gate can be applied to a bundle anywhere. What a run
itself tells is only added to it: a run that forgot a scenario must not make it forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gherkin.errors import CompositeParserException, ParserError
from gherkin.parser import Parser

from pytest_pgo_eks import shipped
from pytest_pgo_eks.pattern import requirements

DEFAULT_LEVEL = 2
_LEVEL = re.compile(r"smoke|level-([0-4])")
_PLACEHOLDER = re.compile(r"<([^<>]+)>")

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Listed:
    """One scenario, or one row of an outline. ``key`` names it whatever directory it ran from."""

    id: str
    feature: str
    name: str
    tags: frozenset[str]
    level: int
    requirements: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.feature, self.name


def shipped_scenarios() -> list[Listed]:
    """Return every scenario of the suite that comes with the package."""
    return list(_below(shipped.features(), "features"))


def scenarios_below(places: Iterable[Path]) -> Iterator[Listed]:
    """Yield the scenarios in feature files, or in folders of them. Ids are relative to nothing."""
    for place in places:
        if place.is_dir():
            yield from _below(place, place.as_posix())
        elif place.suffix == ".feature" and place.is_file():
            yield from _read(place, place.as_posix())


def told_by(document: Mapping[str, Any]) -> Iterator[Listed]:
    """Yield the scenarios that a run knows: those that were chosen, and those it left out."""
    for one in (*document["scenarios"], *document["left_out"]):
        yield Listed(
            one["id"],
            one["feature"],
            one["name"],
            frozenset(one["tags"]),
            one["level"],
            tuple(one["requirements"]),
        )


def combined(*sources: Iterable[Listed]) -> list[Listed]:
    """Return every scenario once, as the first source has it."""
    found: dict[tuple[str, str], Listed] = {}
    ids: set[str] = set()
    for source in sources:
        for one in source:
            # A run of an older version tells no more than the id of what it left out.
            if one.key not in found and not (one.id in ids and not one.feature):
                found[one.key] = one
                ids.add(one.id)
    return list(found.values())


@cache
def _below(folder: Path, name: str) -> tuple[Listed, ...]:
    return tuple(
        one
        for path in sorted(folder.rglob("*.feature"))
        for one in _read(path, f"{name}/{path.relative_to(folder).as_posix()}")
    )


def _read(path: Path, name: str) -> Iterator[Listed]:
    try:
        document: Any = Parser().parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, CompositeParserException, ParserError):
        return  # collecting it is what refuses it, with line and reason
    feature = document.get("feature")
    if not feature:
        return
    for child in feature["children"]:
        if rule := child.get("rule"):
            for inner in rule["children"]:
                yield from _scenario(name, feature, [_tags(rule), _tags(feature)], inner)
        else:
            yield from _scenario(name, feature, [_tags(feature)], child)


def _scenario(file: str, feature: Node, above: list[set[str]], child: Node) -> Iterator[Listed]:
    scenario = child.get("scenario")
    if not scenario:
        return
    nearer = [_tags(scenario), *above]
    name = scenario["name"]
    tables = scenario.get("examples") or ()
    if not tables:
        yield _listed(f"{file}::{name}", feature, name, nearer)
        return
    for table in tables:
        columns = [cell["value"] for cell in (table.get("tableHeader") or {}).get("cells", ())]
        for row in table.get("tableBody") or ():
            values = [cell["value"] for cell in row["cells"]]
            filled = dict(zip(columns, values, strict=False))
            item = f"{name}[{_ascii('-'.join(values))}]"
            title = _PLACEHOLDER.sub(lambda m, filled=filled: filled.get(m[1], m[0]), name)  # type: ignore[misc]
            told = title if title != name else item
            yield _listed(f"{file}::{item}", feature, told, [_tags(table), *nearer])


def _listed(node_id: str, feature: Node, name: str, nearer: list[set[str]]) -> Listed:
    every = set().union(*nearer)
    level = DEFAULT_LEVEL
    for names in nearer:
        # The nearest tag that names one decides.
        if named := [int(m[1] or 0) for tag in names if (m := _LEVEL.fullmatch(tag))]:
            level = min(named)
            break
    return Listed(node_id, feature["name"], name, frozenset(every), level, requirements(every))


def _tags(section: Node) -> set[str]:
    return {tag["name"].removeprefix("@") for tag in section.get("tags", ())}


def _ascii(text: str) -> str:
    """Write a row as pytest writes it into a node id."""
    return text.encode("unicode_escape").decode("ascii")
