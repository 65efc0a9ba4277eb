"""Collects ``.feature`` files as test modules, with no Python stub beside them.

A scenario is an ordinary pytest function item under the file's node, so node ids, ``-k``, ``-m``,
``--lf``, xdist and JUnit work as they do for Python. It leans on semi-private parts of pytest and
pytest-bdd (``_getobj``, ``_genfunctions``, the template registry); ``tests/plugin`` guards each.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _pytest
import pytest
import pytest_bdd
from _pytest.nodeid import NodeId
from _pytest.pathlib import bestrelpath
from pytest_bdd import scenario
from pytest_bdd.exceptions import GherkinParseError
from pytest_bdd.feature import get_feature
from pytest_bdd.parser import Feature, ScenarioTemplate
from pytest_bdd.scenario import scenario_wrapper_template_registry

from pytest_pgo_eks import shipped
from pytest_pgo_eks.gherkin import tags
from pytest_pgo_eks.gherkin.audit import StepAudit, closure, sentences
from pytest_pgo_eks.gherkin.source import Problem, problems

SESSION_FIXTURES = ("pgo_cluster", "pgo_operator", "pgo_postgres")
_MACHINERY = {Path(_pytest.__file__).parent, Path(pytest_bdd.__file__).parent}
TEMPLATE = pytest.StashKey[ScenarioTemplate]()


class FeatureFile(pytest.Module):
    """A Gherkin file; each scenario, and each row of an outline, becomes an item."""

    @classmethod
    def at(cls, parent: pytest.Collector, path: Path) -> FeatureFile:
        """Return the collector of the file at ``path``.

        Of the installed suite, which lies outside every root directory, pytest would make node ids
        that depend on the arguments; these begin with ``features/`` as in a checkout, and can be
        given back as arguments. Of any other file out there it would make an empty one; the whole
        path can be given back too, and is what ``--lf`` looks for.
        """
        suite = shipped.features()
        if path.is_relative_to(suite) and not path.is_relative_to(parent.config.rootpath):
            name = f"features/{path.relative_to(suite).as_posix()}"
            return cls.from_parent(parent, path=path, nodeid=NodeId(path=name))
        if not path.is_relative_to(parent.config.rootpath):
            return cls.from_parent(parent, path=path, nodeid=NodeId(path=path.as_posix()))
        return cls.from_parent(parent, path=path)

    def _getobj(self) -> types.ModuleType:
        found, parsed = problems(self.path, self._known_tags())
        audit = StepAudit(sentences(self))
        feature = None
        if parsed:
            try:
                feature = get_feature(str(self.path.parent), self.path.name)
            except GherkinParseError as error:
                found.append(Problem(error.line, error.message))
            else:
                found += set(audit.problems(feature))
        if found or feature is None:
            raise self._refusal(sorted(found))
        return self._module(feature, audit)

    def _module(self, feature: Feature, audit: StepAudit) -> types.ModuleType:
        module = types.ModuleType(self.path.stem, feature.name or "")
        module.__file__ = str(self.path)
        for name, template in feature.scenarios.items():

            def body() -> None: ...

            bind = scenario(self.path.name, name, features_base_dir=str(self.path.parent))
            wrapper = bind(body)
            if needed := self._needed(template, audit):
                wrapper = pytest.mark.usefixtures(*needed)(wrapper)
            setattr(module, name, wrapper)
        return module

    def _needed(self, template: ScenarioTemplate, audit: StepAudit) -> list[str]:
        """Return which session fixtures the scenario's steps will ask for.

        pytest-bdd asks for them in the middle of the call, where a cluster that does not come up
        would be a failure of the scenario; named here, it is an error of its set-up.
        """
        asked = closure(self, audit.fixtures(template))
        if tags.DISRUPTIVE in _all(template):
            asked.add("pgo_postgres")
        return [name for name in SESSION_FIXTURES if name in asked]

    def _refusal(self, found: list[Problem]) -> pytest.Collector.CollectError:
        place = bestrelpath(self.config.invocation_params.dir, self.path)
        return self.CollectError("\n".join(f"{place}:{p.line}: {p.text}" for p in found))

    def _known_tags(self) -> frozenset[str]:
        lines: list[str] = self.config.getini("markers")
        users = {line.partition(":")[0].partition("(")[0].strip() for line in lines}
        return tags.names() | users

    def collect(self) -> Iterator[pytest.Item]:
        """Yield one item per scenario or outline row, in the file's order."""
        for name, wrapper in list(vars(self.obj).items()):
            if not isinstance(wrapper, types.FunctionType):
                continue
            template = scenario_wrapper_template_registry[wrapper]
            for item in self._genfunctions(name, wrapper):
                item.stash[TEMPLATE] = template
                item.reportinfo = _location(self, template, item.name)  # type: ignore[method-assign]
                item._traceback_filter = _own_frames(item)  # type: ignore[method-assign] # noqa: SLF001
                yield item


def _all(template: ScenarioTemplate) -> set[str]:
    rule = template.rule.tags if template.rule else set()
    rows = [examples.tags for examples in template.examples]
    return template.tags.union(rule, template.feature.tags, *rows)


def _location(file: FeatureFile, template: ScenarioTemplate, name: str) -> Any:
    """Return a ``reportinfo`` that points at the scenario, not at pytest-bdd's wrapper."""
    place = (file.path, template.line_number - 1, f"{template.feature.name}: {name}")
    return lambda: place


def _own_frames(item: pytest.Function) -> Any:
    """Return a traceback filter that begins in the step, not in what called it."""
    ordinary = item._traceback_filter  # noqa: SLF001 - so that --full-trace and --tb keep their meaning

    def keep(excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        found = ordinary(excinfo)
        own = found.filter(lambda entry: Path(entry.path).parent not in _MACHINERY)
        return own if own and not item.config.option.fulltrace else found

    return keep


def tag_levels(item: pytest.Item) -> list[set[str]]:
    """Return the item's tags from the nearest to the farthest: row, scenario, rule, feature.

    For a plain pytest test they are the names of its markers, nearest node first.
    """
    template = item.stash.get(TEMPLATE, None)
    if template is None:
        return [{mark.name} for mark in item.iter_markers()]
    rule = template.rule.tags if template.rule else set()
    own = [template.tags, rule, template.feature.tags]
    row = {mark.name for mark in item.iter_markers()}.difference(*own)
    return [row, *own]


def all_tags(item: pytest.Item) -> set[str]:
    """Return every tag or marker name of the item."""
    return set().union(*tag_levels(item))


def level(item: pytest.Item) -> int:
    """Return the item's importance level; the nearest tag that names one decides."""
    for names in tag_levels(item):
        if names & tags.LEVELS.keys():
            return tags.level(names)
    return tags.DEFAULT_LEVEL
