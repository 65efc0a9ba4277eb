"""The whole page: verdict on top, then what broke, then everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report import story
from pytest_pgo_eks.report.earlier import earlier_runs
from pytest_pgo_eks.report.page import overview, scenario, tables
from pytest_pgo_eks.report.page.parts import esc, section
from pytest_pgo_eks.report.page.style import POLICY, STYLE

Json = Mapping[str, Any]


def page(document: Json, run_dir: Path) -> str:
    """Return the page. It loads nothing, runs nothing, and can be read without its style."""
    earlier = earlier_runs(document, run_dir)
    sections = dict(_sections(document, earlier, run_dir))
    return "".join(
        [
            *_head(document),
            *overview.band(document),
            *_navigation(document, sections),
            '<main id="main">\n',
            *overview.tiles(document),
            *sections.values(),
            "</main>\n",
            *_foot(document),
        ]
    )


_TITLES = {
    "broke": "What broke",
    "gate": "Gate",
    "scenarios": "Scenarios",
    "interruptions": "Interruptions",
    "losses": "Writes and reads",
    "left-out": "Did not run",
    "deviations": "Deviations",
    "runs": "Last runs",
    "requirements": "The pattern",
    "evidence": "Evidence",
    "environment": "Environment",
}


def _sections(
    document: Json, earlier: list[dict[str, Any]], run_dir: Path
) -> Iterator[tuple[str, str]]:
    content: dict[str, tuple[str, str, Iterator[str] | list[str]]] = {
        "broke": ("What broke", "", overview.troubles(document)),
        "gate": ("Gate", "", overview.gate(document)),
        "scenarios": (
            "Scenarios",
            "",
            [
                *overview.mosaic(document),
                *overview.matrix(document, earlier, scenario.told(document)),
            ],
        ),
        "interruptions": (
            "How long writes were interrupted",
            (
                "From the fault to the first acknowledged write after the last outage, as the clients "
                "inside the cluster saw it: the truth lies between the two bounds. The tick is the "
                "budget."
            ),
            [tables.interruptions(document)],
        ),
        "losses": (
            "Acknowledged writes and stale reads",
            (
                "Asynchronous replication allows the end of the log to be lost; “expected” says so. "
                "Unknown are writes that never got an answer, which may be there or not."
            ),
            [tables.losses(document)],
        ),
        "left-out": (
            "What did not run",
            "A scenario that did not run proves nothing.",
            [tables.left_out(document)],
        ),
        "deviations": (
            "Deviations from the pattern's text",
            "Known differences between what the AWS pattern says and what works.",
            [tables.deviations(document)],
        ),
        "runs": ("Compared with the last runs", "", tables.runs(document, earlier)),
        "evidence": (
            "Evidence, scenario by scenario",
            "",
            scenario.evidence(document, run_dir),
        ),
        "requirements": (
            "What of the pattern this run shows",
            "Steps (S) and claims (C) of the AWS pattern; the worst outcome of a row's scenarios.",
            [tables.requirements(document)],
        ),
        "environment": ("Environment", "", tables.environment(document)),
    }
    for name, (title, lead, inner) in content.items():
        if told := "".join(section(name, title, lead, inner)):
            yield name, told


def _head(document: Json) -> Iterator[str]:
    told = f"{story.VERDICTS[document['verdict']]}: {', '.join(story.versions(document)[:2])} on "
    title = f"{told}{document['subject']['provider']}, {document['began'][:10]}"
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
    yield f"<title>{esc(title)}</title><style>{STYLE}</style></head>\n<body>"
    yield '<a class="skip" href="#main">Skip to the numbers</a>\n'


def _navigation(document: Json, sections: Mapping[str, str]) -> Iterator[str]:
    del document
    links = "".join(f'<li><a href="#{name}">{esc(_TITLES[name])}</a></li>' for name in sections)
    yield f'<nav aria-label="On this page"><ul>{links}</ul></nav>\n'


def _foot(document: Json) -> Iterator[str]:
    suite = document["suite"]
    yield f"<footer><p>{esc(suite['name'])} {esc(suite['version'])} · run {esc(document['run'])} · "
    yield "everything here is a view of <code>verdict.json</code></p></footer></body></html>\n"
