"""A policy: read, checked against its schema, and against the scenarios that there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pattern import REQUIREMENTS
from pytest_pgo_eks.report.gate.catalogue import Listed
from pytest_pgo_eks.report.gate.strictyaml import Text
from pytest_pgo_eks.report.schema import problems
from pytest_pgo_eks.settings import nearest

SHIPPED = ("smoke", "nightly", "release")
_FOLDER = "pytest_pgo_eks.report.policies"
_SELECTORS = ("scenario", "tag", "level", "requirement")


@dataclass(frozen=True)
class Policy:
    """A policy that was read: ``value`` as its schema says, ``sha256`` of the file's bytes."""

    name: str
    source: str
    sha256: str
    value: Mapping[str, Any]
    text: Text

    @property
    def baseline(self) -> str | None:
        """Where earlier runs are, a folder relative to the policy's own."""
        told = self.value.get("regression", {}).get("baseline")
        if told is None or "://" in told:
            return told
        return str((self.text.path.parent / told).resolve())


@cache
def schema() -> Mapping[str, Any]:
    """Return the schema of policies."""
    found: Mapping[str, Any] = json.loads(shipped_text("policy.schema.json"))
    return found


def shipped_text(name: str) -> str:
    """Return a file that comes with the package: ``release.yaml``, ``policy.schema.json``."""
    return files(_FOLDER).joinpath(name).read_text("utf-8")


def load(place: str | Path) -> Policy:
    """Read the policy in a file, or the one that comes with the package by its name.

    :raises UsageProblem: there is none, or it says something that no policy says; one line with the
        file's line and, for a misspelt word, the nearest one that is known.
    """
    path = Path(place)
    if str(place) in SHIPPED and not path.exists():
        path = Path(str(files(_FOLDER).joinpath(f"{place}.yaml")))
    if not path.is_file():
        raise UsageProblem(
            f"{place}: there is no such policy{nearest(str(place), SHIPPED)}; name a file, or one that "
            f"comes with the package: {', '.join(SHIPPED)}"
        )
    text = Text(path)
    # Lazily: what is looked at later relies on what was looked at before.
    for wrong, place_of in chain(_unknown(text.value, schema(), ""), _otherwise(text.value)):
        raise UsageProblem(f"{text.at(place_of)}: {wrong}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Policy(text.value["name"], str(place), digest, text.value, text)


def _unknown(value: object, of: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    """Yield words that the schema does not know, before what is missing because of them."""
    if isinstance(value, Mapping):
        known = of.get("properties", {})
        for name, inner in value.items():
            below = f"{place}.{name}" if place else name
            if name in known:
                yield from _unknown(inner, known[name], below)
            elif of.get("additionalProperties") is False:
                where = f" in {place}" if place else ""
                yield f"{name!r} is not known{where}{nearest(name, known)}", below
    elif isinstance(value, list) and "items" in of:
        for number, inner in enumerate(value):
            yield from _unknown(inner, of["items"], f"{place}[{number}]")


def _otherwise(value: Any) -> Iterator[tuple[str, str]]:
    for wrong in problems(value, schema()):
        place = wrong.split(" ", 1)[0]
        yield wrong, place if place != "the" else ""
    yield from _beyond_schema(value)


def _beyond_schema(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the reader's small checker of schemas does not look at."""
    yield from _empty(value, schema(), "")
    for number, one in enumerate(value["required"]):
        named = [name for name in _SELECTORS if name in one]
        if len(named) != 1:
            told = " and ".join(named) or "none"
            yield (
                f"exactly one of {', '.join(_SELECTORS)} has to be there; {told} is",
                (f"required[{number}]"),
            )
    for place, told in _dates(value):
        try:
            date.fromisoformat(told)
        except ValueError:
            yield f"{told!r} is no date: YYYY-MM-DD", place


def _empty(value: object, of: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and len(value.strip()) < of.get("minLength", 0):
        yield f"{place} is too short: {of['minLength']} characters at least", place
    elif isinstance(value, int | float) and value > of.get("maximum", value):
        yield f"{place} is {value}, more than {of['maximum']}", place
    elif isinstance(value, list):
        if len(value) < of.get("minItems", 0):
            yield f"{place} is empty", place
        for number, inner in enumerate(value):
            yield from _empty(inner, of.get("items", {}), f"{place}[{number}]")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            below = f"{place}.{name}" if place else name
            yield from _empty(inner, of["properties"][name], below)


def _dates(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(value.get("quarantine", ())):
        yield f"quarantine[{number}].expires", one["expires"]
    for number, one in enumerate(value["deviations"]["accepted"]):
        if "expires" in one:
            yield f"deviations.accepted[{number}].expires", one["expires"]


# -- against the scenarios that there are


def refuse_unknown(policy: Policy, known: Iterable[Listed]) -> None:
    """Refuse a policy that names a scenario, tag or requirement which does not exist.

    :raises UsageProblem: it would require nothing, or forgive nobody, without anyone noticing.
    """
    scenarios = list(known)
    names = {one.name for one in scenarios}
    tags = set[str]().union(*(one.tags for one in scenarios))
    at = policy.text.at
    for place, key, told in _references(policy.value):
        if key == "tag" and told not in tags:
            raise UsageProblem(
                f"{at(place)}: no scenario carries tag {told!r}{nearest(told, tags)}"
            )
        if key == "requirement" and told not in REQUIREMENTS:
            raise UsageProblem(
                f"{at(place)}: there is no requirement {told!r}{nearest(told, REQUIREMENTS)}"
            )
        if key == "scenario" and not any(matches(told, name) for name in names):
            raise UsageProblem(f"{at(place)}: there is no scenario {told!r}{nearest(told, names)}")
    for number, one in enumerate(policy.value["required"]):
        if not any(selects(one, scenario) for scenario in scenarios):
            raise UsageProblem(f"{at(f'required[{number}]')}: no scenario is meant by this")


def _references(value: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for section in ("required", "excused", "quarantine", "budgets"):
        for number, one in enumerate(value.get(section, ())):
            for key in ("scenario", "tag", "requirement"):
                if key in one:
                    yield f"{section}[{number}].{key}", key, one[key]


def selects(selector: Mapping[str, Any], scenario: Listed) -> bool:
    """Whether an entry of ``required`` means the scenario."""
    if "scenario" in selector:
        return matches(selector["scenario"], scenario.name)
    if "tag" in selector:
        return selector["tag"] in scenario.tags
    if "level" in selector:
        return scenario.level <= int(selector["level"])
    return selector["requirement"] in scenario.requirements


def matches(pattern: str | None, text: str) -> bool:
    """Whether ``text`` is what a pattern means; ``*`` stands for anything, None for everything."""
    if pattern is None:
        return True
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    if not text.startswith(first):
        return False
    at = len(first)
    for part in others[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - len(others[-1]) >= at and text.endswith(others[-1])
