"""What changed between two runs: versions, manifest, settings, verdicts, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.report.measures import Measured, measured

Run = Mapping[str, Any]
Key = tuple[str, str]
_SUBJECT = (
    "provider",
    "region",
    "kubernetes",
    "pgo",
    "postgresql",
    "patroni",
    "manifest_sha256",
    "capabilities",
)
# How the worst comes first.
_ORDER = ("violation", "inconclusive", "skipped", "pass")


@dataclass(frozen=True)
class Difference:
    """One thing that differs. ``about`` is subject, suite, settings, images, deviations, verdict or
    figure; a value is None where one of the runs does not have it."""

    about: str
    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name}: {_told(self.before)} → {_told(self.after)}"


def differences(before: Run, after: Run) -> Iterator[Difference]:
    """Yield what differs, what may explain it first."""
    yield from _mappings("subject", before["subject"], after["subject"], _SUBJECT)
    yield from _mappings("suite", before["suite"], after["suite"], ("version", "commit"))
    settings = sorted({*before["settings"], *after["settings"]})
    yield from _mappings("settings", before["settings"], after["settings"], settings)
    yield from _images(before, after)
    old, new = ({one["id"]: one["did"] for one in run["deviations"]} for run in (before, after))
    yield from _mappings("deviations", old, new, sorted({*old, *new}))
    yield from _verdicts(before, after)
    yield from _figures(before, after)


def _mappings(
    about: str, old: Mapping[str, Any], new: Mapping[str, Any], names: Any
) -> Iterator[Difference]:
    for name in names:
        if old.get(name) != new.get(name):
            yield Difference(about, name, old.get(name), new.get(name))


def _images(before: Run, after: Run) -> Iterator[Difference]:
    old, new = (
        {
            one["container"]: f"{one['image']} {one['digest'] or ''}"
            for one in run["subject"]["images"]
        }
        for run in (before, after)
    )
    yield from _mappings("images", old, new, sorted({*old, *new}))


def _verdicts(before: Run, after: Run) -> Iterator[Difference]:
    old, new = _by_key(before), _by_key(after)
    found = [
        Difference(
            "verdict",
            f"{feature} – {name}",
            _verdict(old.get((feature, name))),
            _verdict(new.get((feature, name))),
        )
        for feature, name in dict.fromkeys([*new, *old])
        if _verdict(old.get((feature, name))) != _verdict(new.get((feature, name)))
    ]
    yield from sorted(
        found, key=lambda one: _ORDER.index(one.after) if one.after in _ORDER else len(_ORDER)
    )


def _figures(before: Run, after: Run) -> Iterator[Difference]:
    """Yield figures whose intervals do not overlap; how long a scenario took is no figure here."""
    old, new = _by_key(before), _by_key(after)
    for key in new:
        if key not in old:
            continue
        was = {one.name: one for one in measured(old[key])}
        for one in measured(new[key]):
            other = was.get(one.name)
            if other is None or one.measure == "duration_s" or _overlap(other, one):
                continue
            told = f"{key[0]} – {key[1]}: {one.name}"
            yield Difference("figure", told, _span(other), _span(one))


def _overlap(one: Measured, other: Measured) -> bool:
    upper, its = (x.upper if x.upper is not None else float("inf") for x in (one, other))
    return one.lower <= its and other.lower <= upper


def _span(one: Measured) -> str:
    if one.upper is None:
        return f"{one.lower:g} and more"
    return f"{one.lower:g}" if one.lower == one.upper else f"{one.lower:g} to {one.upper:g}"


def _by_key(run: Run) -> dict[Key, Mapping[str, Any]]:
    return {(one["feature"], one["name"]): one for one in run["scenarios"]}


def _verdict(scenario: Mapping[str, Any] | None) -> str | None:
    return None if scenario is None else str(scenario["verdict"])


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
