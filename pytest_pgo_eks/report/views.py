"""Every view of a verdict that is a file beside ``verdict.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.secrets import masked

PAGE = "report.html"
SUMMARY = "summary.md"


@dataclass(frozen=True)
class View:
    """A file and the function that writes its text: given the complete document and the run's folder.

    ``render`` names it as ``module:function``, so that nobody imports what he does not need.
    """

    file: str
    what: str
    render: str

    def text(self, document: Mapping[str, Any], run_dir: Path) -> str:
        """Return what belongs into the file."""
        module, _, function = self.render.partition(":")
        render: Callable[[Mapping[str, Any], Path], str]
        render = getattr(import_module(f"pytest_pgo_eks.report.{module}"), function)
        return render(document, run_dir)


VIEWS = (
    View(PAGE, "the page for people", "page.whole:page"),
    View(SUMMARY, "for a job's summary", "markdown:summary"),
    View("comment.md", "for a pull request", "markdown:comment"),
    View("junit.xml", "for CI", "junit:junit"),
    View("ctrf.json", "for dashboards", "ctrf:ctrf"),
    View("metrics.prom", "for Prometheus", "prometheus:prometheus"),
)


def write_views(document: Mapping[str, Any], run_dir: Path, to: Path) -> Iterator[Path]:
    """Write every view into ``to``; yield the paths.

    :raises UsageProblem: ``to`` cannot be written to.
    """
    # Secrets are hidden before anything is escaped: what is escaped would not be found any more.
    hidden: Mapping[str, Any] = masked(document)
    for view in VIEWS:
        yield write_view(view, hidden, run_dir, to)


def write_view(view: View, document: Mapping[str, Any], run_dir: Path, to: Path) -> Path:
    """Write one view of a document that holds no secret any more into ``to``; return its path.

    :raises UsageProblem: ``to`` cannot be written to.
    """
    return written(to / view.file, view.text(document, run_dir))


def append_summary(run_dir: Path, file: Path) -> None:
    """Append the Markdown summary to a CI's own file, which other steps write to as well.

    :raises OSError: it cannot be read or written.
    """
    text = (run_dir / SUMMARY).read_text("utf-8")
    with file.open("a", encoding="utf-8") as summary:
        summary.write(text)


def written(path: Path, text: str) -> Path:
    """Write ``text`` so that ``path`` is the old file or the new one, never half of it.

    :raises UsageProblem: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        # What is no Unicode (half a pair from somebody's broken encoder) must not end a run.
        draft.write_text(text, "utf-8", errors="replace")
        draft.replace(path)
    except OSError as error:
        raise UsageProblem(f"{path}: cannot be written: {error.strerror}") from None
    return path
