"""What a bundle says it holds: ``manifest.json``, and the same for ``sha256sum -c``."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.bundle.archive import Unpacked
from pytest_pgo_eks.secrets import filtered

SCHEMA = "pytest-pgo-eks/bundle/1"
FILE = "manifest.json"
SUMS = "SHA256SUMS"
_OWN = {FILE, SUMS}
# What is text is filtered once more on its way out.
_TEXT = {
    ".json",
    ".jsonl",
    ".log",
    ".txt",
    ".md",
    ".html",
    ".svg",
    ".xml",
    ".prom",
    ".yaml",
    ".yml",
}


@dataclass(frozen=True)
class Entry:
    """One file: its name in the bundle, and its content."""

    name: str
    content: Path | bytes
    size: int
    sha256: str
    masked: bool = False


def collect(run_dir: Path) -> list[Entry]:
    """Return every file of a run's folder, by name.

    Hidden files are left out: they are locks and drafts. Text in which something looks like a
    secret is taken along with that masked.

    :raises UsageProblem: something there is no plain file; a link may lead out of the folder.
    """
    found = []
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if any(part.startswith(".") for part in PurePosixPath(name).parts) or name in _OWN:
            continue
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise UsageProblem(f"{path}: no plain file; a bundle holds nothing else")
        found.append(_entry(name, path))
    return found


def _entry(name: str, path: Path) -> Entry:
    data = path.read_bytes()
    content: Path | bytes = path
    if path.suffix in _TEXT:
        masked = filtered(data.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )
        if masked != data:
            content = data = masked
    digest = hashlib.sha256(data).hexdigest()
    return Entry(name, content, len(data), digest, isinstance(content, bytes))


def folder_name(document: Mapping[str, Any], run_dir: Path) -> str:
    """Return the name of the bundle's folder: the run's, as far as it fits a file name."""
    told = str(document.get("run") or run_dir.resolve().name)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", told).strip(".-")
    return plain[:80] or "run"


def compose(document: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the manifest: whose run, which verdict, and every file with size and checksum."""
    subject = document["subject"]
    return {
        "schema": SCHEMA,
        "suite": document["suite"],
        "run": document.get("run") or "",
        "began": document["began"],
        "verdict": document["verdict"],
        "disclaimer": document["disclaimer"],
        "subject": {
            name: subject.get(name)
            for name in ("provider", "stand_in", "kubernetes", "pgo", "postgresql", "patroni")
        },
        "files": [
            {"name": entry.name, "bytes": entry.size, "sha256": entry.sha256} for entry in entries
        ],
    }


def as_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as it stands in the archive."""
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def sums(entries: Iterable[Entry], manifest: bytes) -> bytes:
    """Return what ``sha256sum -c SHA256SUMS`` reads."""
    lines = [(entry.sha256, entry.name) for entry in entries]
    lines.append((hashlib.sha256(manifest).hexdigest(), FILE))
    return "".join(
        f"{digest}  {name}\n" for digest, name in sorted(lines, key=lambda line: line[1])
    ).encode()


def compare(manifest: Mapping[str, Any], unpacked: Iterable[Unpacked], archive: str) -> None:
    """Demand that the archive holds exactly what its manifest says.

    :raises UsageProblem: a file is missing, added or changed; the first one is named.
    """
    told = {one["name"]: one for one in manifest["files"]}
    if len(told) != len(manifest["files"]):
        raise UsageProblem(f"{archive}: its manifest names a file twice")
    there = {one.name: one for one in unpacked if one.name not in _OWN}
    for name in sorted(told.keys() | there.keys()):
        if name not in there:
            raise UsageProblem(f"{archive}: {name} is missing; the manifest names it")
        if name not in told:
            raise UsageProblem(f"{archive}: {name} was added; the manifest does not name it")
        if (told[name]["bytes"], told[name]["sha256"]) != (there[name].size, there[name].sha256):
            raise UsageProblem(f"{archive}: {name} was changed: its checksum is not the manifest's")
