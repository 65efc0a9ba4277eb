"""What an image name means here: a search path and a few files over the host's own programs.

There are no image layers. ``stand-in/postgres:17`` is the host's PostgreSQL 17 and the harness's
Patroni; a name that is not in the table fails as an unknown image does on Kubernetes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STANDARD_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MAJORS = ("18", "17", "16", "15", "14", "13")
_REPOSITORY = "stand-in"
BACKUP_ENTRY = "/opt/crunchy/bin/pgbackrest"


class ImageProblem(Exception):
    """There is no such image, or the host lacks what it stands for: ErrImagePull."""


@dataclass(frozen=True)
class User:
    """A line of ``/etc/passwd``."""

    name: str
    uid: int
    gid: int
    home: str


ROOT = User("root", 0, 0, "/root")
# UID 26 is what PGO's images and their fsGroup say.
POSTGRES = User("postgres", 26, 26, "/var/lib/pgsql")
PGBOUNCER = User("pgbouncer", 2, 2, "/")
USERS = (ROOT, POSTGRES, PGBOUNCER, User("nobody", 65534, 65534, "/nonexistent"))


@dataclass(frozen=True)
class Image:
    """A view of the host: first user, search path, environment, and scripts by path."""

    name: str
    user: User
    path: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    # The host's directories outside /usr that the programs need, at their own paths.
    prefixes: tuple[Path, ...] = ()
    default_command: tuple[str, ...] = ("/bin/bash",)

    @property
    def image_id(self) -> str:
        return f"stand-in://{self.name}"


def postgres_bin(major: str) -> Path | None:
    """Return the directory of a major version's programs: Debian's layout, then PGDG's for RHEL."""
    for pattern in ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin"):
        found = Path(pattern.format(major))
        if (found / "postgres").exists():
            return found
    return None


def newest_postgres_bin() -> Path | None:
    return next((found for major in _MAJORS if (found := postgres_bin(major))), None)


def python_prefixes() -> tuple[Path, ...]:
    """Return the directories that this interpreter and this package live in, outside ``/usr``."""
    real = Path(os.path.realpath(sys.executable)).parents[1]
    package = Path(__file__).resolve().parents[2]
    wanted = {Path(sys.prefix), Path(sys.base_prefix), real, package}
    for site in _own_packages():
        wanted |= {site, *_scripts(site)}
    outside = sorted(path for path in wanted if not path.is_relative_to("/usr"))
    # A directory below another one is in view already.
    return tuple(p for p in outside if not any(p != q and p.is_relative_to(q) for q in outside))


def _own_packages() -> list[Path]:
    """Return the package directories that the interpreter does not find by itself in a pod.

    ``pip install --user`` puts packages below the home directory, which is another one there.
    """
    found = [
        Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))
    ]
    known = (Path(sys.prefix), Path(sys.base_prefix), Path("/usr"))
    return [path for path in found if not any(path.is_relative_to(p) for p in known)]


def _scripts(site: Path) -> list[Path]:
    # HOME/.local/lib/python3.11/site-packages and HOME/.local/bin
    found = site.parents[2] / "bin" if len(site.parents) > 2 else site
    return [found] if (found / "patroni").exists() else []


def _python_bins() -> tuple[str, ...]:
    """Return where the harness's Python and its scripts (Patroni's) are."""
    scripts = [str(path) for site in _own_packages() for path in _scripts(site)]
    return (str(Path(sys.executable).parent), *scripts)


def _python_env(*, checkout: bool = True) -> dict[str, str]:
    """Return what lets Python find its packages; with ``checkout``, this one even if not installed."""
    package = Path(__file__).resolve().parents[2]
    paths = [*([package.parent] if checkout else []), *_own_packages()]
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    return env | ({"PYTHONPATH": os.pathsep.join(map(str, paths))} if paths else {})


def _require(program: str, image: str, package: str) -> None:
    if shutil.which(program, path=os.pathsep.join(_STANDARD_PATH)) is None:
        raise ImageProblem(f"{image} stands for the host's {program}, which is missing ({package})")


def _postgres(name: str, tag: str) -> Image:
    major = re.match(r"\d+", tag)
    found = postgres_bin(major.group()) if major else None
    if found is None:
        there = ", ".join(m for m in _MAJORS if postgres_bin(m)) or "none"
        raise ImageProblem(f"{name} stands for the host's PostgreSQL {tag}; installed: {there}")
    return Image(
        name,
        POSTGRES,
        (str(found), *_python_bins(), *_STANDARD_PATH),
        env=_python_env(checkout=False) | {"LANG": "C.UTF-8"},
        prefixes=python_prefixes(),
    )


def _pgbackrest(name: str, _tag: str) -> Image:
    _require("pgbackrest", name, "package pgbackrest")
    entry = Path(__file__).with_name("backup_entry.py")
    script = f'#!/bin/sh\nexec "{sys.executable}" -P "{entry}" "$@"\n'
    return Image(
        name,
        POSTGRES,
        _STANDARD_PATH,
        env=_python_env(checkout=False) | {"LANG": "C.UTF-8"},
        scripts={BACKUP_ENTRY: script},
        prefixes=python_prefixes(),
    )


def _pgbouncer(name: str, _tag: str) -> Image:
    _require("pgbouncer", name, "package pgbouncer")
    return Image(name, PGBOUNCER, _STANDARD_PATH, env={"LANG": "C.UTF-8"})


def _operator(name: str, _tag: str) -> Image:
    return Image(
        name,
        PGBOUNCER,
        (*_python_bins(), *_STANDARD_PATH),
        env=_python_env(),
        prefixes=python_prefixes(),
        default_command=(sys.executable, "-m", "pytest_pgo_eks.local.operator"),
    )


def _python(name: str, _tag: str) -> Image:
    newest = newest_postgres_bin()
    tools = (str(newest),) if newest else ()
    return Image(
        name,
        ROOT,
        (*_python_bins(), *tools, *_STANDARD_PATH),
        env=_python_env() | {"LANG": "C.UTF-8"},
        prefixes=python_prefixes(),
        default_command=(sys.executable,),
    )


_TABLE: dict[str, Callable[[str, str], Image]] = {
    "postgres": _postgres,
    "pgbackrest": _pgbackrest,
    "pgbouncer": _pgbouncer,
    "operator": _operator,
    "python": _python,
}


def find_image(name: str) -> Image:
    """Return what an image name stands for; a registry in front of ``stand-in/`` is ignored.

    :raises ImageProblem: the name is unknown, or the host lacks the program.
    """
    bare = name.partition("@")[0]
    *_, repository, last = ("", "", *bare.split("/"))
    short, _, tag = last.partition(":")
    make = _TABLE.get(short) if repository == _REPOSITORY else None
    if make is None:
        known = ", ".join(f"{_REPOSITORY}/{known}" for known in _TABLE)
        raise ImageProblem(f"the stand-in has no image {name!r}; it knows {known}")
    return make(name, tag or "latest")


def all_images() -> Sequence[str]:
    """Return the names a node lists as present."""
    versions = [f"{_REPOSITORY}/postgres:{m}" for m in _MAJORS if postgres_bin(m)]
    others = {"pgbackrest": "latest", "pgbouncer": "latest", "operator": "latest", "python": "3"}
    return [*versions, *(f"{_REPOSITORY}/{name}:{tag}" for name, tag in others.items())]
