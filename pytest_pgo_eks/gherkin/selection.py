"""What of the collected runs: without a cluster no scenario does, with one up to the level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_pgo_eks.errors import NotPermitted
from pytest_pgo_eks.gherkin import collector, tags
from pytest_pgo_eks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

WORKER_LINE = "pgo_line"
WHY = pytest.StashKey[str]()
"""Why an item was deselected, where it was for a reason of ours."""


def uses_cluster(item: pytest.Item) -> bool:
    """Whether the item is a scenario of ours or a plain test that asks for one of our fixtures."""
    if isinstance(item.parent, collector.FeatureFile):
        return True
    names = getattr(item, "fixturenames", ())
    return any(name in names for name in collector.SESSION_FIXTURES)


_ALLOW = "which is only looked at; --pgo-allow-disruption lets it"


class Selection:
    """Deselects and skips; ``never`` are the capabilities that the provider can never have."""

    def __init__(self, settings: Settings | None, never: Mapping[str, str]) -> None:
        self._settings = settings
        self._never = never
        self.without_cluster = 0
        self.above_level = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if self._settings is None:
            ours = [item for item in items if isinstance(item.parent, collector.FeatureFile)]
            self.without_cluster = len(ours)
            # Listing costs nothing and is what somebody asks for who looks around first.
            if not config.option.collectonly:
                _deselect(config, items, ours)
            return
        above = [
            item
            for item in items
            if uses_cluster(item) and collector.level(item) > self._settings.level
        ]
        self.above_level = len(above)
        for item in above:
            item.stash[WHY] = f"level {collector.level(item)} is above {self._settings.level}"
        _deselect(config, items, above)
        for item in items:
            if uses_cluster(item):
                self._skip_what_never_works(item)

    def _skip_what_never_works(self, item: pytest.Item) -> None:
        settings = self._settings
        if settings and settings.adopt and not settings.allow_disruption and _disruptive(item):
            item.add_marker(pytest.mark.skip(reason=f"disrupts {settings.adopt}, {_ALLOW}"))
        for name in tags.needed(collector.all_tags(item)):
            if name in self._never:
                item.add_marker(pytest.mark.skip(reason=lacking(name, self._never[name])))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None]:
        """Skip, with its reason, what turns out to need a change that this run must not make."""
        try:
            yield
        except NotPermitted as refused:
            pytest.skip(str(refused))

    def line(self) -> str | None:
        """Return the one line that says what was left out and how to run it."""
        if self.without_cluster:
            return (
                f"pgo: {_scenarios(self.without_cluster)} need a cluster and did not run; run them "
                "with --cluster=local (or kind, k3s, kubeconfig, eks)"
            )
        if self.above_level and self._settings:
            return (
                f"pgo: {_scenarios(self.above_level)} above level {self._settings.level} did not "
                "run; --pgo-level=4 runs everything"
            )
        return None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the line to xdist's controller, which collects nothing itself."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[WORKER_LINE] = self.line()

    def pytest_report_collectionfinish(self) -> list[str]:
        line = self.line()
        return [line] if line else []


def select_without_cluster(config: pytest.Config) -> None:
    """Have a run without ``--cluster`` deselect the features that it collects; once is enough."""
    if not config.pluginmanager.hasplugin("pgo-selection"):
        config.pluginmanager.register(Selection(None, {}), "pgo-selection")


def lacking(name: str, why: str) -> str:
    """Return the reason of a skip for a missing capability."""
    return f"needs {name} ({tags.CAPABILITIES[name]}): {why}"


def _disruptive(item: pytest.Item) -> bool:
    return item.get_closest_marker(tags.DISRUPTIVE) is not None


def _scenarios(count: int) -> str:
    return "1 scenario" if count == 1 else f"{count} scenarios"


def _deselect(config: pytest.Config, items: list[pytest.Item], gone: list[pytest.Item]) -> None:
    if gone:
        config.hook.pytest_deselected(items=gone)
        lost = set(gone)
        items[:] = [item for item in items if item not in lost]
