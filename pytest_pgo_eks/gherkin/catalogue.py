"""The sentences: where step definitions come from, and the list that ``pytest --pgo-steps`` prints."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections import defaultdict

import pytest

from pytest_pgo_eks.gherkin.audit import Sentence, sentences

_PACKAGE = "pytest_pgo_eks.steps"
_ORDER = ("given", "when", "then", "*")
_TITLES = {"given": "Given", "when": "When", "then": "Then", "*": "Given, When or Then"}


def register_steps(config: pytest.Config) -> None:
    """Make the shipped sentences known to this session; once is enough.

    Late on purpose: a run without features imports none of them.
    """
    if config.pluginmanager.hasplugin(_PACKAGE) or importlib.util.find_spec(_PACKAGE) is None:
        return
    if _PACKAGE not in sys.modules:
        pytest.register_assert_rewrite(_PACKAGE)
    package = importlib.import_module(_PACKAGE)
    config.pluginmanager.register(package, _PACKAGE)
    for found in pkgutil.iter_modules(package.__path__):
        name = f"{_PACKAGE}.{found.name}"
        config.pluginmanager.register(importlib.import_module(name), name)


def show(config: pytest.Config) -> int:
    """Print every sentence that the arguments' features may use; return the exit status."""
    from _pytest.main import wrap_session

    return int(wrap_session(config, _print))


def _print(config: pytest.Config, session: pytest.Session) -> int:
    register_steps(config)
    # Collecting loads the conftests of the directories that were named.
    session.perform_collect()
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    for line in lines(_all_sentences(session)):
        reporter.write_line(line)
    return 0


def _all_sentences(session: pytest.Session) -> list[Sentence]:
    """Return what any collected node sees, each definition once."""
    nodes: list[pytest.Collector | pytest.Session] = [session]
    nodes += {item.parent for item in session.items if isinstance(item.parent, pytest.Collector)}
    found = {id(s.context): s for node in nodes for s in sentences(node)}
    return list(found.values())


def lines(known: list[Sentence]) -> list[str]:
    """Return the catalogue of ``known`` as lines of text."""
    groups: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in known:
        if not sentence.function.__module__.startswith("pytest_bdd"):
            groups[sentence.kind].append(sentence)
    text: list[str] = []
    for kind in _ORDER:
        if groups[kind]:
            text += ["", f"{_TITLES[kind]}"]
        for sentence in sorted(groups[kind], key=lambda s: s.text):
            text.append(f"  {sentence.shown}")
            meaning = inspect.getdoc(sentence.function) or ""
            text += [f"      {line}" if line else "" for line in meaning.splitlines()]
            text.append(f"      ({sentence.where()})")
    return text or ["no step definitions are known here"]
