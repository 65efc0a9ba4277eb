"""JUnit XML: what every CI reads, with requirement ids and links as properties.

A suite for each feature. A violation is a ``failure``, what could not be judged an ``error``, so that
a CI tells the product's faults from the infrastructure's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pytest_pgo_eks.report.links import anchor, source_url
from pytest_pgo_eks.report.text import interval, line, plain

Scenario = Mapping[str, Any]
_MOST_TEXT = 20_000


def junit(document: Mapping[str, Any], run_dir: Path) -> str:
    """Return the whole file."""
    del run_dir
    suites: dict[str, list[Scenario]] = {}
    for scenario in document["scenarios"]:
        suites.setdefault(scenario["feature"], []).append(scenario)
    scenarios = document["scenarios"]
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name="pytest-pgo-eks" {_counts(scenarios)} time="{document["took_s"]:.3f}">\n'
    )
    parts = [head]
    for name, members in suites.items():
        took_s = sum(one["took_s"] for one in members)
        parts.append(
            f"<testsuite name={_value(name)} {_counts(members)} "
            f'time="{took_s:.3f}" timestamp={_value(members[0]["began"])}>\n'
        )
        parts.extend(_properties(_of_run(document)))
        for one in members:
            parts.extend(_case(document, one))
        parts.append("</testsuite>\n")
    parts.append("</testsuites>\n")
    return "".join(parts)


def _counts(scenarios: Sequence[Scenario]) -> str:
    verdicts = [one["verdict"] for one in scenarios]
    return (
        f'tests="{len(verdicts)}" failures="{verdicts.count("violation")}" '
        f'errors="{verdicts.count("inconclusive")}" skipped="{verdicts.count("skipped")}"'
    )


def _case(document: Mapping[str, Any], scenario: Scenario) -> Iterator[str]:
    yield (
        f"<testcase classname={_value(scenario['feature'])} name={_value(scenario['name'])} "
        f'file={_value(scenario["id"].partition("::")[0])} line="{scenario["line"]}" '
        f'time="{scenario["took_s"]:.3f}">\n'
    )
    yield from _properties(of_scenario(document, scenario))
    told = escape(plain(scenario["reason"])[:_MOST_TEXT])
    message = _value(line(scenario["reason"]))
    match scenario["verdict"]:
        case "violation":
            yield f'<failure type="violation" message={message}>{told}</failure>\n'
        case "inconclusive":
            yield f'<error type="inconclusive" message={message}>{told}</error>\n'
        case "skipped":
            yield f"<skipped message={message}/>\n"
    yield "</testcase>\n"


def _of_run(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    subject = document["subject"]
    for name in ("provider", "region", "pgo", "postgresql", "patroni", "kubernetes"):
        if subject[name]:
            yield name, str(subject[name])
    yield "verdict", document["verdict"]
    if document["disclaimer"]:
        yield "disclaimer", document["disclaimer"]


def of_scenario(document: Mapping[str, Any], scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield a scenario's properties: requirements, links, figures, how to run it again."""
    for requirement in scenario["requirements"]:
        yield "requirement", requirement
    yield "level", str(scenario["level"])
    for tag in scenario["tags"]:
        yield "tag", tag
    yield "link", f"report.html#{anchor(scenario['id'])}"
    if url := source_url(document, scenario):
        yield "source", url
    job = document["executor"]
    if job and job["url"]:
        yield "job", job["url"]
    if scenario["folder"]:
        yield "evidence", scenario["folder"]
    for row in scenario["rto"]:
        yield f"interruption: {row['path']}", interval(row["lower_s"], row["upper_s"])
    if scenario["loss"]:
        yield "lost writes", str(scenario["loss"]["lost"])
    yield "rerun", scenario["rerun"]


def _properties(pairs: Iterator[tuple[str, str]]) -> Iterator[str]:
    inner = "".join(f"<property name={_value(n)} value={_value(v)}/>" for n, v in pairs)
    if inner:
        yield f"<properties>{inner}</properties>\n"


def _value(text: str) -> str:
    return quoteattr(line(text, 2000))
