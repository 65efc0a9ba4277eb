"""The page's tables: interruptions, losses, what did not run, deviations, requirements, runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_pgo_eks.report import story
from pytest_pgo_eks.report.links import anchor
from pytest_pgo_eks.report.page.parts import (
    FINDINGS,
    Cell,
    badge,
    esc,
    facts,
    finding_badge,
    link,
    table,
    url_link,
)
from pytest_pgo_eks.report.text import counted, interval, seconds

Json = Mapping[str, Any]
_NAMES = 12
_HASH = 19


def interruptions(document: Json) -> str:
    """Return every judged interruption as an interval, beside its budget."""
    rows = story.intervals(document)
    most = max(
        (value for _, row in rows for value in (row["upper_s"], row["budget_s"]) if value),
        default=1.0,
    )
    return table(
        "How long writes were interrupted",
        ("Scenario", "Fault", "Path", "Sessions", "Interval", "Budget", "Judged"),
        [
            (
                Cell(link(anchor(scenario["id"]), scenario["name"])),
                Cell(esc(", ".join(row["faults"]) or "–")),
                Cell(esc(row["path"])),
                Cell(esc(row["sessions"])),
                Cell(f"{interval(row['lower_s'], row['upper_s'])}{_bar(row, most)}"),
                Cell("–" if row["budget_s"] is None else f"{row['budget_s']:g} s"),
                Cell(finding_badge(row["outcome"])),
            )
            for scenario, row in rows
        ],
        numbers=(5,),
    )


def _bar(row: Json, most: float) -> str:
    """Return the interval drawn to scale, with a tick at the budget; the text beside it says it all."""
    lower, upper, budget = row["lower_s"] or 0.0, row["upper_s"], row["budget_s"]
    end = most if upper is None else upper
    if end == 0:
        return ""
    kind = FINDINGS[row["outcome"]][0].replace("skipped", "pass")
    x, width = lower / most * 160, max((end - lower) / most * 160, 2)
    tick = (
        f'<rect class="b" x="{min(budget / most * 160, 158):.1f}" width="2" height="14"/>'
        if budget
        else ""
    )
    return (
        '<svg class="bar" viewBox="0 0 160 14" aria-hidden="true">'
        f'<rect class="t" fill="#d5d9df" y="5" width="{x:.1f}" height="4"/>'
        f'<rect class="{kind}" fill="#57606a" x="{min(x, 158):.1f}" y="2" width="{width:.1f}" height="10"/>'
        f"{tick}</svg>"
    )


def losses(document: Json) -> str:
    """Return what became of acknowledged writes and how stale reads were."""
    rows = [one for one in document["scenarios"] if one["loss"] or one["staleness"]]
    rank = {"violated": 0, "unknown": 1, "expected": 2}
    rows.sort(key=lambda one: rank.get((one["loss"] or {}).get("outcome", ""), 3))
    return table(
        "Acknowledged writes and stale reads",
        ("Scenario", "Replication", "Acknowledged", "Lost", "Unknown", "Oldest read", "Judged"),
        [_loss_row(one) for one in rows],
        numbers=(2, 3, 4, 5),
    )


def _loss_row(scenario: Json) -> Sequence[Cell]:
    loss, stale = scenario["loss"], scenario["staleness"]
    counts = ("acknowledged", "lost", "indeterminate")
    return (
        Cell(link(anchor(scenario["id"]), scenario["name"])),
        Cell(esc(scenario["replication"] or "–")),
        *(Cell(f"{loss[name]:,}" if loss else "–") for name in counts),
        Cell(seconds(stale["max_s"]) if stale else "–"),
        Cell(finding_badge(loss["outcome"]) if loss else "–"),
    )


def left_out(document: Json) -> str:
    """Return what did not run, by reason."""
    words = {"missing-capability": "missing capability"}
    return table(
        "Scenarios that did not run",
        ("Reason", "Kind", "How many", "Which"),
        [
            (
                Cell(esc(reason)),
                Cell(esc(words.get(kind, kind))),
                Cell(str(len(every))),
                Cell(_names(every)),
            )
            for (kind, reason), every in story.reasons(document["left_out"]).items()
        ],
        numbers=(2,),
    )


def _names(every: Sequence[Json]) -> str:
    names = "".join(f"<li>{esc(one['name'])}</li>" for one in every[:_NAMES])
    more = len(every) - _NAMES
    told = f"<li>… and {more} more</li>" if more > 0 else ""
    return f'<ul class="plain">{names}{told}</ul>'


def deviations(document: Json) -> str:
    """Return the known differences between the pattern's text and what was done."""
    names = {one["id"]: one["name"] for one in document["scenarios"]}
    return table(
        "Deviations from the pattern's text",
        ("Id", "The text says", "What was done or seen", "Why", "Met by"),
        [
            (
                Cell(esc(one["id"])),
                Cell(esc(one["text"] or "–")),
                Cell(esc(one["did"])),
                Cell(esc(one["why"] or "–")),
                Cell(
                    ", ".join(link(anchor(i), names.get(i, i)) for i in one["scenarios"])
                    or "the provider"
                ),
            )
            for one in document["deviations"]
        ],
    )


def requirements(document: Json) -> str:
    """Return the pattern's rows and claims with the worst outcome behind each."""
    return table(
        "What of the pattern this run shows",
        ("Id", "The pattern says", "Outcome", "Scenarios"),
        [
            (
                Cell(esc(one["id"])),
                Cell(esc(one["text"])),
                Cell(badge(one["verdict"], "Not covered" if one["verdict"] == "uncovered" else "")),
                Cell(str(one["scenarios"] or "–")),
            )
            for one in document["requirements"]
        ],
        numbers=(3,),
    )


def runs(document: Json, earlier: Sequence[Json]) -> Iterator[str]:
    """Yield the last runs beside this one, and what changed since the last."""
    if not earlier:
        return
    changed = story.changes(document, earlier[0])
    if changed:
        yield '<h3>Since the last run</h3><ul class="plain">'
        for one in changed[:40]:
            word = {True: "worse", False: "better", None: "other"}[one.worse]
            kind = {True: "violation", False: "pass", None: "skipped"}[one.worse]
            name = link(anchor(one.scenario["id"]), one.what) if one.scenario else esc(one.what)
            sign = {True: "▼", False: "▲", None: "•"}[one.worse]
            yield f'<li><span class="badge {kind}">{sign} {word}</span> {name}: {esc(one.was[:60])} → {esc(one.now[:60])}</li>'
        if len(changed) > 40:
            yield f"<li>… and {len(changed) - 40} more</li>"
        yield "</ul>"
    else:
        yield "<p>Nothing changed since the last run: the same versions, the same outcomes.</p>"
    yield "<h3>Last runs</h3>"
    yield table(
        "Last runs",
        (
            "Began",
            "Verdict",
            "Passed",
            "Violated",
            "Inconclusive",
            "Longest interruption",
            "Lost",
            "What was judged",
        ),
        [_run_row(one) for one in (document, *earlier)],
        numbers=(2, 3, 4, 5, 6),
    )


def _run_row(run: Json) -> Sequence[Cell]:
    counts, found = run["counts"], story.longest(run)
    span = interval(found[1]["lower_s"], found[1]["upper_s"]) if found else "–"
    return (
        Cell(esc(run["began"][:16].replace("T", " "))),
        Cell(badge(run["verdict"])),
        *(Cell(str(counts[kind])) for kind in ("pass", "violation", "inconclusive")),
        Cell(span),
        Cell(str(story.lost(run, allowed=False))),
        Cell(esc(", ".join(story.versions(run)) or "–")),
    )


def environment(document: Json) -> Iterator[str]:
    """Yield what was judged, by what, where, with which settings, and what it cost."""
    subject, suite, job = document["subject"], document["suite"], document["executor"]
    yield facts(
        {
            **{name: esc(subject[key] or "") for name, key in _SUBJECT},
            "Capabilities": esc(", ".join(subject["capabilities"])),
            "PostgresCluster": _hash(subject["manifest_sha256"]),
            "Suite": f"{esc(suite['name'])} {esc(suite['version'])}",
            "Commit": _hash(suite["commit"]),
            "Job": url_link(job["url"], f"{job['name']} {job['build'] or ''}".strip())
            if job
            else "",
            "Run": esc(document["run"]),
            "Seed": "" if document["seed"] is None else f"<code>{document['seed']}</code>",
            "Again": f"<code>{esc(document['rerun'])}</code>",
            **{esc(name): esc(value) for name, value in document["environment"].items()},
        }
    )
    told = {name: v for name, v in document["settings"].items() if v is not None}
    if told:
        inner = facts({name: esc(value) for name, value in told.items()})
        yield f"<details><summary>{counted(len(told), 'setting')}</summary>{inner}</details>"
    if subject["images"]:
        images = table(
            "Images",
            ("Container", "Image", "Digest"),
            [
                (Cell(esc(i["container"])), Cell(esc(i["image"])), Cell(_hash(i["digest"]) or "–"))
                for i in subject["images"]
            ],
        )
        yield f"<details><summary>{counted(len(subject['images']), 'image')}</summary>{images}</details>"
    yield _cost(document)
    if document["leftovers"]:
        left = "".join(f"<li><code>{esc(one)}</code></li>" for one in document["leftovers"])
        yield f'<h3>Left behind</h3><ul class="plain">{left}</ul>'


_SUBJECT = (
    ("PGO", "pgo"),
    ("PostgreSQL", "postgresql"),
    ("Patroni", "patroni"),
    ("Kubernetes", "kubernetes"),
    ("Provider", "provider"),
    ("Region", "region"),
    ("Namespace", "namespace"),
    ("Cluster", "cluster"),
)


def _cost(document: Json) -> str:
    if not (cost := document["cost"]):
        return ""
    estimate = "" if cost["estimate_usd"] is None else f", estimated {cost['estimate_usd']:.2f}"
    return (
        f"<h3>Cost: {cost['usd']:.2f} USD{estimate} (prices of {esc(cost['prices_of'])})</h3>"
        + table(
            "Cost",
            ("What", "Hours", "USD"),
            [
                (Cell(esc(one["what"])), Cell(f"{one['hours']:.2f}"), Cell(f"{one['usd']:.2f}"))
                for one in cost["lines"]
            ],
            numbers=(1, 2),
        )
    )


def _hash(value: str | None) -> str:
    if not value:
        return ""
    short = value if len(value) <= _HASH else f"{value[:_HASH]}…"
    return f'<code title="{esc(value)}">{esc(short)}</code>'
