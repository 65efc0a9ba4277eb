"""Which version of Kubernetes a run gets: asked of EKS, never written down here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pytest_pgo_eks.errors import UsageProblem

#: PGO's custom resources need the validation rules of 1.30; newer ones it names no limit for.
LEAST = (1, 30)
#: A cluster that leaves standard support sooner than this is not chosen by itself.
_DAYS_LEFT = 30


@dataclass(frozen=True)
class Version:
    """A version as EKS offers it. ``extended`` is the one that costs six times as much."""

    name: str
    extended: bool
    standard_until: date | None
    extended_until: date | None

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.name.split("."))


def offered(answer: Iterable[Mapping[str, Any]]) -> list[Version]:
    """Return what DescribeClusterVersions lists and can be created, the newest first."""
    found = [
        Version(
            each["clusterVersion"],
            each.get("versionStatus", each.get("status", "")).upper() == "EXTENDED_SUPPORT",
            _day(each.get("endOfStandardSupportDate")),
            _day(each.get("endOfExtendedSupportDate")),
        )
        for each in answer
        if each.get("versionStatus", each.get("status", "")).upper()
        in {"STANDARD_SUPPORT", "EXTENDED_SUPPORT"}
    ]
    return sorted(found, key=lambda v: v.number, reverse=True)


def choose(
    known: list[Version], pinned: str | None, today: date, retired: Version | None = None
) -> Version:
    """Return the pinned version, or the newest in standard support that PGO supports.

    ``retired`` is what EKS says of a pinned version that it no longer lists.

    :raises UsageProblem: EKS cannot create the pinned one, with the dates; or there is none at all.
    """
    names = ", ".join(f"{v.name}{' (extended)' if v.extended else ''}" for v in known)
    if pinned is not None:
        for each in known:
            if each.name == pinned:
                return _supported(each, names)
        dates = ""
        if retired is not None:
            dates = (
                f": its standard support ended on {retired.standard_until}, its extended support "
                f"on {retired.extended_until}"
            )
        raise UsageProblem(
            f"--pgo-kubernetes-version: EKS cannot create {pinned}{dates}; it offers {names}"
        )
    good = [v for v in known if not v.extended and v.number >= LEAST]
    lasting = [
        v for v in good if v.standard_until is None or (v.standard_until - today).days > _DAYS_LEFT
    ]
    if not good:
        raise UsageProblem(
            f"EKS offers no version in standard support that PGO supports; it offers {names}"
        )
    return (lasting or good)[0]


def _supported(found: Version, names: str) -> Version:
    if found.number < LEAST:
        least = ".".join(map(str, LEAST))
        raise UsageProblem(
            f"--pgo-kubernetes-version: PGO needs {least} or newer, not {found.name}; "
            f"EKS offers {names}"
        )
    return found


def retired(answer: Iterable[Mapping[str, Any]], pinned: str) -> Version | None:
    """Return the dates of a version that can no longer be created, None where EKS is silent."""
    for each in answer:
        if each["clusterVersion"] == pinned:
            return Version(
                pinned,
                extended=True,
                standard_until=_day(each.get("endOfStandardSupportDate")),
                extended_until=_day(each.get("endOfExtendedSupportDate")),
            )
    return None


def _day(moment: Any) -> date | None:
    return moment.date() if moment is not None else None
