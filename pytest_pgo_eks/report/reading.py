"""Reads ``verdict.json`` of any age of version 1, from anywhere, trusting nothing in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.document import FILE, SCHEMA
from pytest_pgo_eks.report.figures import completed
from pytest_pgo_eks.report.schema import problems, verdict_schema

# Ten thousand scenarios with a hundred findings each stay under this; anything larger is no verdict.
MAX_BYTES = 512 * 1024 * 1024


def verdict_file(place: Path) -> Path:
    """Return the ``verdict.json`` that ``place`` is, holds, or leads to by ``latest``.

    :raises UsageProblem: there is none.
    """
    if place.is_file():
        return place
    for candidate in (place / FILE, place / "latest" / FILE):
        if candidate.is_file():
            return candidate
    raise UsageProblem(f"{place}: there is no {FILE} here; name a run's folder or the file itself")


def load(place: Path) -> dict[str, Any]:
    """Return the document at ``place`` with every field of today's schema in it.

    Fields that its writer did not know yet are derived from what is there, or empty.

    :raises UsageProblem: no such file, not JSON, cut off, or no verdict of version 1.
    """
    path = verdict_file(place)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageProblem(f"{path}: larger than {MAX_BYTES >> 20} MiB, so it is no verdict")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageProblem(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UsageProblem(
            f"{path}: not JSON, or cut off: {error.msg} in line {error.lineno}"
        ) from None
    except RecursionError:
        raise UsageProblem(f"{path}: nested too deeply to be a verdict") from None
    return checked(found, str(path))


def checked(found: object, where: str) -> dict[str, Any]:
    """Return ``found`` as a complete document.

    :raises UsageProblem: it is none; the message begins with ``where``.
    """
    if not isinstance(found, Mapping) or found.get("schema") != SCHEMA:
        seen = found.get("schema") if isinstance(found, Mapping) else type(found).__name__
        raise UsageProblem(f"{where}: not a verdict of {SCHEMA} but {seen!r}")
    if (first := next(problems(found, verdict_schema()), None)) is not None:
        raise UsageProblem(f"{where}: says it is {SCHEMA} and is not: {first}")
    return completed(found)
