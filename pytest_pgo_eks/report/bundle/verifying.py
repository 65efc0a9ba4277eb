"""``verify``: does the verdict of a bundle follow from the evidence in it?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks import __version__
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report import reading
from pytest_pgo_eks.report.bundle import manifest as manifests
from pytest_pgo_eks.report.bundle.archive import Limits, Unpacked, unpack
from pytest_pgo_eks.report.bundle.following import troubles_of_run, troubles_of_scenario
from pytest_pgo_eks.report.bundle.rejudging import rejudge

SUFFIX = ".tar.gz"


@dataclass
class Verified:
    """What verifying came to; the verdict follows where ``wrong`` is empty."""

    document: Mapping[str, Any]
    files: int = 0
    histories: int = 0
    findings: int = 0
    taken: int = 0
    """Findings that were taken as told: they looked at the cluster, or at a moment of the run."""
    unseen: int = 0
    """Scenarios without a raw history."""
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(place: Path, limits: Limits | None = None) -> Iterator[tuple[Path, int | None]]:
    """Give the folder of a run, unpacked if ``place`` is a bundle, and how many files were checked.

    For a folder, which has no checksums, that number is None. What was unpacked is gone afterwards.

    :raises UsageProblem: the bundle is not whole, or not as its manifest says; one line.
    """
    if place.is_dir():
        yield reading.verdict_file(place).parent, None
        return
    if not place.is_file():
        raise UsageProblem(f"{place}: there is no such bundle or folder")
    if place.suffix == ".json":
        raise UsageProblem(f"{place}: a verdict alone; name its folder, where the evidence is")
    with tempfile.TemporaryDirectory(prefix="pgo-bundle-") as scratch:
        folder = Path(scratch)
        unpacked = unpack(place, folder, limits)
        _check_manifest(folder, unpacked, place.name)
        yield folder, len(unpacked)


def document_of(place: Path) -> dict[str, Any]:
    """Return the verdict of a bundle, a folder or a file, without judging anything again.

    :raises UsageProblem: it has none; of a bundle: it is not whole, or not as its manifest says.
    """
    if place.name.endswith((SUFFIX, ".tgz")) and place.is_file():
        with opened(place) as (folder, _):
            return _named(reading.load(folder), place)
    return _named(reading.load(place), place)


def _named(document: dict[str, Any], place: Path) -> dict[str, Any]:
    folder = place if place.is_dir() else place.parent
    document["run"] = document["run"] or folder.resolve().name
    return document


def verify(place: Path, limits: Limits | None = None) -> Verified:
    """Check a bundle's integrity and judge its raw histories again.

    :raises UsageProblem: it cannot be read as a bundle at all, or is not what its manifest says.
    """
    with opened(place, limits) as (folder, files):
        _refuse_repeated_keys(folder)
        document = reading.load(folder)
        result = Verified(document, files or 0)
        if files is None:
            result.notes.append("a folder has no checksums: only what is in it was judged again")
        written_by = document["suite"]["version"]
        same = written_by == __version__
        if not same:
            result.notes.append(
                f"judged by version {written_by}, checked by {__version__}: outcomes are compared, "
                "figures that differ are told"
            )
        result.wrong += troubles_of_run(document, same_version=same)
        for scenario in document["scenarios"]:
            _scenario(scenario, folder, result, same_version=same)
    return result


def _scenario(
    scenario: Mapping[str, Any], folder: Path, result: Verified, *, same_version: bool
) -> None:
    again = rejudge(scenario, folder, same_version=same_version)
    result.histories += again.histories
    result.findings += again.findings
    result.taken += again.taken
    result.unseen += not again.histories and scenario["verdict"] != "skipped"
    wrong = [*troubles_of_scenario(scenario, folder, same_version=same_version), *again.wrong]
    name = scenario["name"]
    result.wrong += [f"“{name}”: {line}" for line in dict.fromkeys(wrong)]
    result.notes += [f"“{name}”: {line}" for line in again.notes]


def _check_manifest(folder: Path, unpacked: list[Unpacked], archive: str) -> None:
    if not unpacked or unpacked[0].name != manifests.FILE:
        raise UsageProblem(f"{archive}: no bundle: it does not begin with {manifests.FILE}")
    raw = (folder / manifests.FILE).read_bytes()
    try:
        manifest = json.loads(raw)
        if manifest["schema"] != manifests.SCHEMA:
            raise UsageProblem(
                f"{archive}: a bundle of {manifest['schema']!r}; this program reads {manifests.SCHEMA}"
            )
        entries = [
            manifests.Entry(str(one["name"]), b"", int(one["bytes"]), str(one["sha256"]))
            for one in manifest["files"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageProblem(
            f"{archive}: its {manifests.FILE} cannot be read: {type(error).__name__} {error}"
        ) from None
    manifests.compare(manifest, unpacked, archive)
    sums = folder / manifests.SUMS
    if not sums.is_file() or sums.read_bytes() != manifests.sums(entries, raw):
        raise UsageProblem(f"{archive}: {manifests.SUMS} is missing or says otherwise")
    document = reading.load(folder)
    for name in ("verdict", "began", "disclaimer"):
        if manifest.get(name) != document[name]:
            raise UsageProblem(f"{archive}: manifest and verdict disagree about its {name}")


def _refuse_repeated_keys(folder: Path) -> None:
    """Refuse a document that says something twice: which of the two counts depends on the reader."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise UsageProblem(f"verdict.json says {repeated!r} twice in one place")
        return found

    path = reading.verdict_file(folder)
    try:
        json.loads(path.read_text("utf-8"), object_pairs_hook=once)
    except UsageProblem:
        raise
    except (OSError, ValueError, RecursionError):
        return  # told by who reads it
