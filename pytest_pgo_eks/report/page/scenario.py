"""The page's lower half: the evidence of every scenario, folded away unless it failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report.links import anchor, source_url
from pytest_pgo_eks.report.page.parts import badge, esc, facts, file_link, finding_badge, url_link
from pytest_pgo_eks.report.page.picture import inlined
from pytest_pgo_eks.report.story import interrupts
from pytest_pgo_eks.report.text import counted, first_lines, interval, seconds

Json = Mapping[str, Any]
# Pictures of 30 to 45 KiB each: beyond this the page would be slow to open, and the rest are files
# beside it. Failed scenarios get theirs first.
PICTURE_BYTES = 6 << 20
# Beyond this many of a group, those that passed have their line in the matrix alone.
MOST = 800
_OPERATIONS, _FINDINGS, _REASON_LINES = 6, 60, 60
_FAILED = {"violation", "inconclusive"}
_STEPS = {"passed": "✓", "failed": "✗", "skipped": "–", "running": "…"}


def evidence(document: Json, run_dir: Path) -> Iterator[str]:
    """Yield every scenario: those that failed, those with faults, the others; in the order of time."""
    pictures = _pictures(document["scenarios"], run_dir)
    for title, members in _groups(document).items():
        if not members:
            continue
        yield f"<h3>{title}</h3>\n"
        shown = _shown(title, members)
        for one in shown:
            yield from _scenario(document, one, pictures.get(one["id"]))
        if more := len(members) - len(shown):
            yield f'<p class="lead">… and {counted(more, "more scenario")}, in verdict.json.</p>'


def told(document: Json) -> set[str]:
    """Return the ids of the scenarios whose evidence is on the page."""
    return {
        one["id"] for title, members in _groups(document).items() for one in _shown(title, members)
    }


def _groups(document: Json) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {
        "Not passed": [],
        "Disturbed on purpose": [],
        "Undisturbed": [],
    }
    for one in document["scenarios"]:
        failed = one["verdict"] in _FAILED
        title = (
            "Not passed" if failed else "Disturbed on purpose" if one["faults"] else "Undisturbed"
        )
        groups[title].append(one)
    groups["Not passed"].sort(key=lambda one: one["verdict"] != "violation")
    return groups


def _shown(title: str, members: list[Json]) -> list[Json]:
    """Return whose evidence is shown; whatever went wrong is told in full, however much it is."""
    return members if title == "Not passed" else members[:MOST]


def _pictures(scenarios: list[Json], run_dir: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    left = PICTURE_BYTES
    for one in sorted(scenarios, key=lambda scenario: scenario["verdict"] not in _FAILED):
        for name in one["attachments"]:
            path = run_dir / name
            if not name.endswith("timeline.svg") or left <= 0 or not _inside(path, run_dir):
                continue
            if picture := inlined(path, f"Timeline of “{one['name']}”"):
                left -= len(picture)
                found[one["id"]] = found.get(one["id"], "") + _figure(picture, one)
    return found


def _inside(path: Path, run_dir: Path) -> bool:
    try:
        return path.resolve().is_relative_to(run_dir.resolve())
    except (OSError, ValueError):
        return False


def _figure(picture: str, scenario: Json) -> str:
    label = f"Timeline of “{scenario['name']}”, scrolls sideways"
    return f'<figure class="timeline" role="group" tabindex="0" aria-label="{esc(label)}">{picture}</figure>'


def _scenario(document: Json, one: Json, picture: str | None) -> Iterator[str]:
    verdict = one["verdict"]
    opened = " open" if verdict in _FAILED else ""
    aside = _aside(one)
    yield f"<details{opened}><summary>{badge(verdict)} {esc(one['name'])}{aside}</summary>"
    yield f'<div class="inner" id="{anchor(one["id"])}">'
    yield facts(
        {
            "Feature": esc(one["feature"]),
            "Promise": esc(one["rule"]),
            "Shows": " ".join(f'<span class="chip">{esc(r)}</span>' for r in one["requirements"]),
            "Tags": " ".join(f'<span class="chip">{esc(tag)}</span>' for tag in one["tags"]),
            "Replication": esc(one["replication"] or ""),
            "Began": f"{esc(one['began'][:19].replace('T', ' '))}, took {seconds(one['took_s'])}",
        }
    )
    if one["reason"]:
        yield f"<pre>{esc(chr(10).join(first_lines(one['reason'], _REASON_LINES)))}</pre>"
    yield picture or ""
    yield from _steps(one)
    yield from _faults(one)
    yield from _outages(one)
    yield from _findings(one)
    yield from _files(document, one)
    yield "</div></details>\n"


def _aside(one: Json) -> str:
    """Return the scenario's longest interruption and losses, for the line that is always seen."""
    told = []
    uppers = [row for row in one["rto"] if interrupts(row)]
    if uppers:
        row = max(uppers, key=lambda r: float("inf") if r["upper_s"] is None else r["upper_s"])
        told.append(interval(row["lower_s"], row["upper_s"]))
    if one["loss"] and one["loss"]["lost"]:
        told.append(f"{one['loss']['lost']:,} lost")
    return f' <span class="chip">{esc(", ".join(told))}</span>' if told else ""


def _steps(one: Json) -> Iterator[str]:
    if not one["steps"]:
        return
    yield '<ol class="steps">'
    for step in one["steps"]:
        sign = _STEPS[step["outcome"]]
        yield (
            f'<li class="{step["outcome"]}"><span aria-hidden="true">{sign}</span>'
            f"<span><strong>{step['kind'].capitalize()}</strong> {esc(step['text'])}"
            f'<span class="hid"> ({step["outcome"]})</span></span>'
            f"<span>{seconds(step['took_s'])}</span></li>"
        )
    yield "</ol>"


def _faults(one: Json) -> Iterator[str]:
    if not one["faults"]:
        return
    yield '<h4>Faults, each proven</h4><ul class="plain">'
    for fault in one["faults"]:
        yield (
            f"<li><strong>{esc(fault['kind'])}</strong> at {esc(fault['target'])}, "
            f"{seconds(fault['began_s'])} after the begin: {esc(fault['proof'])}</li>"
        )
    yield "</ul>"


def _outages(one: Json) -> Iterator[str]:
    seen = [outage for outage in one["outages"] if outage["upper_s"] >= 0.4]  # above noise
    if not seen:
        return
    yield f"<details><summary>{counted(len(seen), 'outage')} that clients saw</summary>"
    yield '<ul class="plain">'
    for outage in seen:
        what = "reads" if outage["reads"] else "writes"
        ended = "" if outage["over"] else ", not over at the end"
        yield (
            f"<li>{esc(outage['path'])}, {esc(outage['session'])} sessions: no {what} for "
            f"{interval(outage['lower_s'], outage['upper_s'])} from {outage['from_s']:.2f} s"
            f"{ended}, {counted(outage['failures'], 'attempt')} failed</li>"
        )
    yield "</ul></details>"


def _findings(one: Json) -> Iterator[str]:
    if not one["findings"]:
        return
    rank = {"violated": 0, "unknown": 1, "expected": 2}
    found = sorted(one["findings"], key=lambda f: rank.get(f["outcome"], 3))
    yield '<h4>What was judged</h4><ul class="plain">'
    for finding in found[:_FINDINGS]:
        yield f"<li>{finding_badge(finding['outcome'])} {esc(finding['sentence'])} "
        yield f'<span class="chip">{esc(finding["rule"])}</span>'
        if finding["outcome"] != "holds" and finding["operations"]:
            shown = "\n".join(finding["operations"][:_OPERATIONS])
            more = len(finding["operations"]) - _OPERATIONS
            yield f"<pre>{esc(shown)}{f'{chr(10)}… {more} more' if more > 0 else ''}</pre>"
        yield "</li>"
    if len(found) > _FINDINGS:
        yield f"<li>… and {len(found) - _FINDINGS} more in verdict.json</li>"
    yield "</ul>"


def _files(document: Json, one: Json) -> Iterator[str]:
    # Of diagnostics the README leads on.
    shown = [
        name
        for name in one["attachments"]
        if "/diagnostics/" not in name or name.endswith("README.txt")
    ]
    source = source_url(document, one)
    yield facts(
        {
            "Files": ", ".join(file_link(name) for name in shown),
            "Source": url_link(source, one["id"].partition("::")[0]) if source else "",
            "Again": f"<code>{esc(one['rerun'])}</code>",
        }
    )
