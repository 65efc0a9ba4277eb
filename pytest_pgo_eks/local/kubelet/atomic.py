"""Writing a volume's files so that readers see all of a change or nothing of it.

The layout is the kubelet's: the files are in a directory with a time as its name, ``..data`` is a
link to it, and each visible name is a link through ``..data``. Replacing that one link is the
update. It also changes the volume directory's own time, which PGO's reload loops compare.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_pgo_eks.local.kubelet.payload import Content

_DATA = "..data"
_NEXT = "..data_tmp"


def write(directory: Path, files: Mapping[str, Content]) -> bool:
    """Make ``directory`` show exactly these files; say whether anything changed."""
    data = directory / _DATA
    current = directory / data.readlink() if data.is_symlink() else None
    if current and _stored(current) == dict(files):
        return False
    now = dt.datetime.now(dt.UTC)
    fresh = directory / f"..{now:%Y_%m_%d_%H_%M_%S}.{now.microsecond:06d}"
    fresh.mkdir(parents=True)
    fresh.chmod(0o755)
    for name, content in files.items():
        file = fresh / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.data)
        file.chmod(content.mode)
    following = directory / _NEXT
    following.unlink(missing_ok=True)
    following.symlink_to(fresh.name)
    following.replace(data)
    wanted = {name.split("/", 1)[0] for name in files}
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
    for link in directory.iterdir():
        if not link.name.startswith("..") and link.name not in wanted:
            link.unlink()
    if current:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _stored(directory: Path) -> dict[str, Content]:
    return {
        str(file.relative_to(directory)): Content(file.read_bytes(), file.stat().st_mode & 0o7777)
        for file in directory.rglob("*")
        if file.is_file()
    }
