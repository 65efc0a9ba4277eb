"""Every view of a verdict that is a file beside ``verdict.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.secrets import filtered

Render = Callable[[Mapping[str, Any], Path], str]


@dataclass(frozen=True)
class View:
    """``render`` is given the complete document and the folder of the run's evidence."""

    file: str
    what: str
    render: Render


VIEWS: tuple[View, ...] = ()


def write_views(document: Mapping[str, Any], run_dir: Path, to: Path) -> Iterator[Path]:
    """Write every view into ``to``; yield the paths.

    :raises UsageProblem: ``to`` cannot be written to.
    """
    for view in VIEWS:
        text = filtered(view.render(document, run_dir))
        yield written(to / view.file, text)


def written(path: Path, text: str) -> Path:
    """Write ``text`` so that ``path`` is the old file or the new one, never half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(text, "utf-8")
        draft.replace(path)
    except OSError as error:
        raise UsageProblem(f"{path}: cannot be written: {error.strerror}") from None
    return path
