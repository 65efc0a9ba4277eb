"""What ``--pgo-install SOURCE`` can mean, decided by looking, before anything is created."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_pgo_eks.errors import UsageProblem

ALREADY = "installed"
# The stand-in's own operator as a release of this series, to rehearse with: ``stand-in:5.8``.
STAND_IN = "stand-in:"
Layout = Literal["kustomize", "chart", "manifest", "stand-in"]
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
# The folders with the parts: in the operator's own repository, and in the examples' as the pattern
# has it (removed from that repository in December 2025).
_LAYOUTS = ("config", "kustomize/install")
# An archive of the operator's repository has some 40 MB; what is larger by far is something else.
_MOST_BYTES = 512 << 20


@dataclass(frozen=True)
class Source:
    """A place that holds an operator. ``place`` is a directory, a file or a chart's ``oci://`` name."""

    given: str
    layout: Layout
    place: str
    parts: str = ""

    @property
    def path(self) -> Path:
        return Path(self.place)

    def part(self, name: str) -> Path:
        """Return one of the folders of the installer (``namespace``, ``default`` …)."""
        return self.path / self.parts / name


def source_of(given: str | None, scratch: Path) -> Source | None:
    """Return what ``given`` names, or None where the operator is already there.

    An archive is unpacked below ``scratch``.

    :raises UsageProblem: it names nothing that can be installed.
    """
    if given is None or given.strip().lower() == ALREADY:
        return None
    given = given.strip()
    if given.startswith("oci://"):
        return Source(given, "chart", given)
    if given.startswith(STAND_IN):
        return Source(given, "stand-in", given.removeprefix(STAND_IN))
    if "://" in given:
        raise UsageProblem(
            f"--pgo-install {given}: download it first and name the file; only charts are taken by "
            "their name (oci://…)"
        )
    path = Path(given).expanduser()
    if not path.exists():
        raise UsageProblem(f"--pgo-install {given}: there is no such file or directory")
    if path.is_file() and given.lower().endswith(_ARCHIVES):
        return _directory(given, _unpacked(given, path, scratch))
    if path.is_file():
        if path.suffix.lower() not in {".yaml", ".yml", ".json"}:
            raise UsageProblem(
                f"--pgo-install {given}: neither YAML nor an archive ({', '.join(_ARCHIVES)})"
            )
        return Source(given, "manifest", str(path.resolve()))
    return _directory(given, path.resolve())


def _directory(given: str, path: Path) -> Source:
    for parts in _LAYOUTS:
        if (path / parts / "default" / "kustomization.yaml").is_file():
            return Source(given, "kustomize", str(path), parts)
    for chart in (path, path / "helm" / "install"):
        if (chart / "Chart.yaml").is_file():
            return Source(given, "chart", str(chart))
    raise UsageProblem(
        f"--pgo-install {given}: it holds neither config/default (the operator's repository), "
        "kustomize/install/default (the examples' until December 2025) nor Chart.yaml (a Helm chart)"
    )


def _unpacked(given: str, archive: Path, scratch: Path) -> Path:
    into = scratch / "source"
    into.mkdir(parents=True)
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as packed:
                _refuse_large(given, sum(one.file_size for one in packed.infolist()))
                packed.extractall(into)  # noqa: S202 - zipfile keeps inside by itself
        else:
            with tarfile.open(archive) as packed_tar:
                _refuse_large(given, sum(one.size for one in packed_tar.getmembers()))
                packed_tar.extractall(into, filter="data")
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageProblem(f"--pgo-install {given}: cannot be unpacked: {said}") from error
    inside = list(into.iterdir())
    # Archives of repositories have one folder on top, named after the commit.
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else into


def _refuse_large(given: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise UsageProblem(f"--pgo-install {given}: unpacked it would have {size >> 20} MB")
