"""Matches every step of a feature with the step definitions it can see, before anything runs.

Missing, ambiguous and ``async`` steps are silent or late in pytest-bdd: after earlier steps have
done their work, on a cluster that took minutes to make.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import parsers
from pytest_bdd.compat import get_fixture_names, getfixturedefs
from pytest_bdd.parser import Feature, ScenarioTemplate, Step
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry

from pytest_pgo_eks.gherkin.source import Problem


@dataclass(frozen=True)
class Sentence:
    """One step definition. ``kind`` is given, when, then, or ``*`` where it serves all three."""

    kind: str
    text: str
    context: StepFunctionContext

    @property
    def shown(self) -> str:
        """The sentence for people: of a regular expression only the names and choices are left."""
        if isinstance(self.context.parser, parsers.re):
            return readable(self.text)
        return self.text

    @property
    def function(self) -> Any:
        return inspect.unwrap(self.context.step_func)

    def where(self) -> str:
        """Return ``file:line`` of the function, with the shortest unambiguous path."""
        code = getattr(self.function, "__code__", None)
        if code is None:
            return repr(self.function)
        path = Path(code.co_filename)
        try:
            shown = path.relative_to(Path.cwd())
        except ValueError:
            shown = Path(*path.parts[-2:])
        return f"{shown}:{code.co_firstlineno}"

    def is_async(self) -> bool:
        function = self.function
        return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def sentences(node: pytest.Collector | pytest.Session) -> list[Sentence]:
    """Return the step definitions that ``node`` sees.

    A sentence that a nearer conftest defines again overrides the farther one, as fixtures do; two
    of one name at the same distance are both returned, and so are ambiguous.
    """
    manager = node.session._fixturemanager  # noqa: SLF001 - there is no public way to list fixtures
    found = []
    for name in get_fixture_names(manager):
        if not name.startswith("pytestbdd_stepdef_"):
            continue
        visible = [
            (definition.baseid, context)
            for definition in getfixturedefs(manager, name, node) or ()
            if (context := step_function_context_registry.get(definition.func)) is not None
        ]
        if visible:
            nearest = visible[-1][0]
            found += [
                Sentence(context.type or "*", context.parser.name, context)
                for base, context in visible
                if base == nearest
            ]
    return found


def closure(node: pytest.Collector, names: Iterable[str]) -> set[str]:
    """Return ``names`` and every fixture that those need, as ``node`` sees them."""
    manager = node.session._fixturemanager  # noqa: SLF001 - as above
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and (definitions := getfixturedefs(manager, name, node)):
            found.add(name)
            waiting += definitions[-1].argnames
    return found


class StepAudit:
    """Audits the steps of features against one set of sentences; equal steps are matched once."""

    def __init__(self, known: list[Sentence]) -> None:
        self._known = known
        self._matches: dict[tuple[str, str], list[Sentence]] = {}

    def problems(self, feature: Feature) -> Iterator[Problem]:
        """Yield what is wrong with the steps of ``feature``, outlines with every row filled in."""
        for template in feature.scenarios.values():
            for step in _rendered(template):
                if text := self._problem(step):
                    yield Problem(step.line_number, text)

    def _problem(self, step: Step) -> str | None:
        matching = self.matching(step.type, step.name)
        shown = f"{step.keyword.strip()} {step.name}"
        if not matching:
            return f"no step definition for {shown!r}{self._suggestions(step)}"
        if len(matching) > 1:
            places = ", ".join(sorted(f"{s.shown!r} in {s.where()}" for s in matching))
            return f"{len(matching)} step definitions match {shown!r}: {places}"
        if matching[0].is_async():
            return (
                f"{shown!r} is an async function in {matching[0].where()}: it would pass without "
                "running"
            )
        return None

    def fixtures(self, template: ScenarioTemplate) -> set[str]:
        """Return the names that the step functions of a scenario ask pytest for."""
        return {
            name
            for step in _rendered(template)
            for sentence in self.matching(step.type, step.name)
            for name in inspect.signature(sentence.context.step_func).parameters
        }

    def matching(self, kind: str, text: str) -> list[Sentence]:
        key = (kind, text)
        if key not in self._matches:
            self._matches[key] = [
                sentence
                for sentence in self._known
                if sentence.kind in {kind, "*"} and sentence.context.parser.is_matching(text)
            ]
        return self._matches[key]

    def _suggestions(self, step: Step) -> str:
        other = {s.kind for s in self._known if s.context.parser.is_matching(step.name)} - {"*"}
        if other:
            kinds = " and ".join(sorted(kind.capitalize() for kind in other))
            return f"; the sentence exists, but as {kinds}, not as {step.type.capitalize()}"
        own = [s.shown for s in self._known if s.kind in {step.type, "*"} and s.text != "trace"]
        plain = {_without_values(text): text for text in own}
        close = difflib.get_close_matches(_without_values(step.name), plain, n=3, cutoff=0.5)
        if not close:
            return ""
        return "; nearest are: " + "; ".join(repr(plain[text]) for text in close)


def readable(pattern: str) -> str:
    """Return a step's regular expression as a sentence.

    >>> readable(r"the (?P<which>ha|primary) Service has (?P<count>\\d+) endpoints?")
    'the {which: ha|primary} Service has {count} endpoints?'
    """
    text, rest = "", pattern
    while match := re.search(r"\(\?(?:P<(\w+)>|:)", rest):
        end = _closing(rest, match.end())
        inner, name = rest[match.end() : end], match[1]
        choices = bool(re.fullmatch(r"[\w' -]+(?:\|[\w' -]+)*", inner))
        if name is None:
            shown = f"({readable(inner)})"
        else:
            shown = f"{{{name}: {inner}}}" if choices else f"{{{name}}}"
        text += rest[: match.start()] + shown
        rest = rest[end + 1 :]
    return text + rest


def _closing(text: str, begin: int) -> int:
    """Return where the group that was opened before ``begin`` closes."""
    depth = 1
    for index in range(begin, len(text)):
        if text[index - 1] != "\\":
            depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return len(text)


def _without_values(text: str) -> str:
    """Return ``text`` with parameters and numbers levelled, so that only the words compare."""
    return re.sub(r"\{[^}]*\}|\d+(\.\d+)?", "N", text).lower()


def _rendered(template: ScenarioTemplate) -> Iterator[Step]:
    rows = [row for examples in template.examples for row in examples.as_contexts()]
    for row in rows or [{}]:
        yield from template.render(row).steps
