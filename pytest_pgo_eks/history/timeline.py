"""One picture per run: a self-contained SVG without scripts, readable on light and dark ground.

Lanes, top to bottom: latency of every operation (log scale, binned to a grid so that its size does
not grow with the run), acknowledgements and failures per 100 ms, one lane per server coloured by
timeline (two primaries show as two lanes acknowledging at once), staleness of replica reads, and
over all of them what was marked: faults, leader, labels, Endpoints, first acknowledgements. The
same facts come as JSON from :func:`facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pytest_pgo_eks.history.history import (
    OK,
    OUTCOMES,
    READ,
    WRITE,
    Column,
    History,
)
from pytest_pgo_eks.history.outage import Outage, every_outage
from pytest_pgo_eks.history.phases import phases
from pytest_pgo_eks.history.reads import staleness

_LEFT, _RIGHT, _WIDTH = 150, 20, 1200
_PLOT = _WIDTH - _LEFT - _RIGHT
_BIN_S = 0.1
_LATENCY_H, _RATE_H, _LANE_H, _STALE_H = 170, 90, 22, 60
_MAX_MARKS = 40
_MAX_OUTAGES = 7
# Beside three databases on two busy cores healthy silences reach 0.2 s: less than this tells nothing.
_TOLD_S = 0.4
_THINNEST = 4.0

_STYLE = """
svg{font:12px system-ui,sans-serif;--ink:#1b1f24;--soft:#6b7280;--line:#d5d9df;--ground:#fff;
--ok:#2563eb;--unsafe:#b45309;--fail:#dc2626;--info:#9333ea;--out:#dc262622;
--t0:#94a3b8;--t1:#2563eb;--t2:#ea580c;--t3:#16a34a;--t4:#9333ea;--t5:#ca8a04;--t6:#0891b2}
@media(prefers-color-scheme:dark){svg{--ink:#e6e8eb;--soft:#9aa3af;--line:#3a4048;--ground:#15181c;
--ok:#60a5fa;--unsafe:#fbbf24;--fail:#f87171;--info:#c084fc;--out:#f8717133;
--t0:#64748b;--t1:#60a5fa;--t2:#fb923c;--t3:#4ade80;--t4:#c084fc;--t5:#facc15;--t6:#22d3ee}}
text{fill:var(--ink)}.soft{fill:var(--soft)}.grid{stroke:var(--line);fill:none}
.ok{fill:var(--ok)}.unsafe{fill:var(--unsafe)}.fail{fill:var(--fail)}.info{fill:var(--info)}
.out{fill:var(--out)}.mark{stroke:var(--ink);stroke-dasharray:3 3}
.on{paint-order:stroke;stroke:var(--ground);stroke-width:3px}.big{font-size:15px;font-weight:600}
"""


def svg(history: History, title: str = "", outages: Sequence[Outage] | None = None) -> str:
    """Return the picture. An empty history gives a picture that says so."""
    found = list(every_outage(history)) if outages is None else list(outages)
    return _Picture(history, title or history.run, found).draw()


def facts(history: History, outages: Sequence[Outage] | None = None) -> dict[str, Any]:
    """Return what the picture shows, as JSON-able data; times are seconds since the run began."""
    found = list(every_outage(history)) if outages is None else list(outages)
    ops = history.ops
    writes = ops.kind == WRITE
    return {
        "run": history.run,
        "end": history.end,
        "seconds": round(_span_s(history), 4),
        "operations": len(ops),
        "writes": {
            name: int((writes & (ops.outcome == i)).sum()) for i, name in enumerate(OUTCOMES)
        },
        "paths": sorted(history.paths.values()),
        "outages": [
            {
                "path": o.path,
                "session": o.session,
                "reads": o.reads,
                "lower_s": round(o.lower_s, 4),
                "upper_s": round(o.upper_s, 4),
                "estimate_s": round(o.estimate_s, 4),
                "from_s": round(history.seconds(o.began[0]), 4),
                "to_s": round(history.seconds(o.ended[1]), 4),
                "over": o.over,
                "failures": o.failures,
                "operations": list(o.operations(history)),
                "phases": [
                    {"name": p.name, "at_s": round(history.seconds(p.at), 4), "proof": p.proof}
                    for p in phases(history, o)
                ],
            }
            for o in found
        ],
        "servers": [
            {
                "server": history.server(int(server)),
                "timeline": int(timeline),
                "acknowledged": int(count),
                "from_s": round(history.seconds(first), 4),
                "to_s": round(history.seconds(last), 4),
            }
            for server, timeline, count, first, last in _reigns(history)
        ],
        "staleness": staleness(history, _replica_reads(history)).quantiles(),
        "events": [
            {"at_s": round(history.seconds(e["at"]), 4), "what": told}
            for e in history.events
            if (told := describe_event(e))
        ],
    }


def describe_event(event: Mapping[str, Any]) -> str:
    """Return an event in a few words; empty for those that a picture does not need."""
    kind = event["kind"]
    if kind == "mark":
        return str(event["name"])
    if kind == "pinned-ended":
        return f"pinned session {event['client']} on {event['path']} learned that it is gone"
    if kind == "cluster":
        return str(event["what"])
    if kind == "disk":
        return f"the probe's disk: {event['state']}"
    return ""


def _is_news(event: Mapping[str, Any]) -> bool:
    """Tell changes from what was there when the watch began, and slices from what they repeat."""
    if event["kind"] != "cluster":
        return True
    return "was" in event and not str(event["object"]).startswith("slice/")


def _span_s(history: History) -> float:
    ops = history.ops
    return float(ops.done.max() - history.began) / 1e9 if len(ops) else 0.0


def _replica_reads(history: History) -> Column:
    ops = history.ops
    return np.flatnonzero((ops.kind == READ) & (ops.outcome == OK) & (ops.recovery == 1))


def _reigns(history: History) -> list[tuple[int, int, int, int, int]]:
    """Return (server, timeline, acknowledgements, first, last) for whoever acknowledged writes."""
    ops = history.ops
    mine = np.flatnonzero((ops.kind == WRITE) & (ops.outcome <= 1))
    if not len(mine):
        return []
    pairs, at = np.unique(
        np.stack([ops.server[mine].astype(np.int64), ops.timeline[mine].astype(np.int64)]),
        axis=1,
        return_inverse=True,
    )
    told = []
    for i, (server, timeline) in enumerate(pairs.T):
        done = ops.done[mine[at.ravel() == i]]
        told.append((int(server), int(timeline), len(done), int(done.min()), int(done.max())))
    return sorted(told, key=lambda r: r[3])


def _worst_of_each(outages: Sequence[Outage]) -> list[Outage]:
    """Return the longest outage of each path and kind of session, what matters most first.

    New sessions come before reconnecting ones, and pinned sessions last: one that was ended never
    acknowledges anything again, so its outage is always the longest and says the least.
    """
    worst: dict[tuple[str, str], Outage] = {}
    for one in outages:
        if one.upper_s < _TOLD_S:
            continue
        known = worst.get((one.path, one.session))
        if known is None or one.upper_s > known.upper_s:
            worst[one.path, one.session] = one
    order = {"scout": 0, "paced": 1, "pinned": 2}
    ranked = sorted(worst.values(), key=lambda o: (order[o.session], o.reads, -o.upper_s))
    return ranked[:_MAX_OUTAGES]


def _importance(event: Mapping[str, Any], text: str) -> int:
    """Rank an event, 0 first: what was done, who leads where, which role a pod got, the rest."""
    if event["kind"] == "mark":
        return 0
    if event["kind"] == "cluster" and text.startswith("endpoints"):
        return 1
    return 2 if ": role " in text else 3


def _chosen(told: Sequence[tuple[Any, str]], most: int) -> list[tuple[Any, str]]:
    """Return the most important events, in the order of time."""
    ranked = sorted(range(len(told)), key=lambda i: (_importance(*told[i]), i))[:most]
    return [told[i] for i in sorted(ranked)]


class _Picture:
    def __init__(self, history: History, title: str, outages: list[Outage]) -> None:
        self.history = history
        self.title = title
        self.outages = outages
        self.span_s = max(_span_s(history), 0.1)
        self.out: list[str] = []
        self.y = 0.0

    def draw(self) -> str:
        ops = self.history.ops
        self._header()
        top = self.y
        if len(ops):
            self._latency()
            self._rates()
            self._servers()
            self._staleness()
            self._axis(top)
            self._shade(top)
        else:
            self._text(_LEFT, self.y + 20, "no operation was recorded", "soft")
            self.y += 40
        self._marks(top)
        height = round(self.y + 10)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-label={quoteattr(self.title)}>'
            f"<style>{_STYLE}</style>"
            f'<rect width="{_WIDTH}" height="{height}" fill="var(--ground)"/>'
        )
        return head + "".join(self.out) + "</svg>\n"

    def _x(self, at: int) -> float:
        return _LEFT + self.history.seconds(at) / self.span_s * _PLOT

    def _text(self, x: float, y: float, text: str, kind: str = "", extra: str = "") -> None:
        name = f' class="{kind}"' if kind else ""
        self.out.append(f'<text x="{x:.0f}" y="{y:.0f}"{name}{extra}>{escape(text)}</text>')

    def _header(self) -> None:
        ops = self.history.ops
        writes = ops.kind == WRITE
        counts = ", ".join(
            f"{int((writes & (ops.outcome == i)).sum())} {name}" for i, name in enumerate(OUTCOMES)
        )
        self._text(10, 22, self.title, "big")
        self._text(10, 40, f"{self.span_s:.1f} s, writes: {counts}", "soft")
        self.y = 46
        for outage in _worst_of_each(self.outages):
            what = "reads" if outage.reads else "writes"
            end = "" if outage.over else " (not over)"
            self.y += 15
            self._text(
                10,
                self.y,
                f"{outage.path}, {outage.session} sessions: no {what} for {outage.lower_s:.2f} to "
                f"{outage.upper_s:.2f} s from {self.history.seconds(outage.began[0]):.2f} s"
                f"{end}, {outage.failures} failed",
            )
        self.y += 16

    def _latency(self) -> None:
        """Draw the scatter, binned to two pixels; a path per outcome keeps it small."""
        ops = self.history.ops
        kept = (ops.kind == WRITE) | (ops.kind == READ)
        top, low, high = self.y, 2.0, 7.2  # log10 of microseconds: 0.1 ms to 16 s
        y = (np.log10(np.maximum((ops.done[kept] - ops.invoke[kept]) / 1e3, 1.0)) - low) / (
            high - low
        )
        row = np.clip((1 - y) * (_LATENCY_H / 2), 0, _LATENCY_H / 2 - 1).astype(np.int64)
        seconds = (ops.done[kept] - self.history.began) / 1e9
        column = np.clip(seconds / self.span_s * (_PLOT / 2), 0, _PLOT / 2 - 1).astype(np.int64)
        outcome = ops.outcome[kept]
        for number, name in enumerate(OUTCOMES):
            cells = np.unique(np.stack([row, column])[:, outcome == number], axis=1)
            self.out.append(self._cells(cells, top, name))
        for exponent, label in ((3, "1 ms"), (4, "10 ms"), (5, "100 ms"), (6, "1 s"), (7, "10 s")):
            at = top + (1 - (exponent - low) / (high - low)) * _LATENCY_H
            self.out.append(f'<path class="grid" d="M{_LEFT} {at:.0f}h{_PLOT}"/>')
            self._text(_LEFT - 6, at + 4, label, "soft", ' text-anchor="end"')
        self._text(10, top + 14, "latency")
        self.y = top + _LATENCY_H + 12

    def _cells(self, cells: Column, top: float, name: str) -> str:
        """Join neighbouring cells of a row into one dash: that is what keeps the file small."""
        if not cells.size:
            return ""
        row, column = cells
        begins = np.flatnonzero(
            np.concatenate(([True], (np.diff(row) != 0) | (np.diff(column) != 1)))
        )
        lengths = np.diff(np.concatenate((begins, [len(row)])))
        parts = []
        px = py = 0
        for r, c, n in zip(
            row[begins].tolist(), column[begins].tolist(), lengths.tolist(), strict=True
        ):
            x, y = 2 * c, 2 * r
            parts.append(f"m{x - px} {y - py}h{2 * n}")
            px, py = x + 2 * n, y
        d = "".join(parts)
        return (
            f'<path d="M{_LEFT} {top + 1:.0f}{d}" fill="none" '
            f'stroke="var(--{name})" stroke-width="2"/>'
        )

    def _rates(self) -> None:
        ops = self.history.ops
        writes = ops.kind == WRITE
        bins = max(1, min(int(self.span_s / _BIN_S) + 1, _PLOT))
        at = ((ops.done - self.history.began) / 1e9 / self.span_s * bins).astype(np.int64)
        at = np.clip(at, 0, bins - 1)
        good = np.bincount(at[writes & (ops.outcome == OK)], minlength=bins)
        bad = np.bincount(at[writes & (ops.outcome != OK)], minlength=bins)
        most = max(int(good.max()), int(bad.max()), 1)
        base = self.y + _RATE_H * 0.65
        width = _PLOT / bins
        for counts, name, sign in ((good, "ok", -1), (bad, "fail", 1)):
            scale = _RATE_H * (0.62 if sign < 0 else 0.33) / most
            parts = [
                f"M{_LEFT + i * width:.1f} {base:.0f}v{sign * counts[i] * scale:.1f}h{width:.1f}"
                f"V{base:.0f}z"
                for i in np.flatnonzero(counts)
            ]
            self.out.append(f'<path class="{name}" d="{"".join(parts)}"/>')
        self.out.append(f'<path class="grid" d="M{_LEFT} {base:.0f}h{_PLOT}"/>')
        self._text(10, self.y + 14, "acknowledged")
        self._text(10, self.y + 28, f"most {most} per {self.span_s / bins * 1e3:.0f} ms", "soft")
        self._text(10, base + 14, "not acknowledged")
        self.y += _RATE_H + 8

    def _servers(self) -> None:
        """Draw one lane per server; a tick per pixel in which it acknowledged, coloured by timeline."""
        ops = self.history.ops
        mine = np.flatnonzero((ops.kind == WRITE) & (ops.outcome <= 1))
        if not len(mine):
            return
        self._text(10, self.y + 12, "who acknowledged", "soft")
        self.y += 16
        seconds = (ops.done[mine] - self.history.began) / 1e9
        pixel = np.clip(seconds / self.span_s * _PLOT, 0, _PLOT - 1).astype(np.int64)
        for server in dict.fromkeys(r[0] for r in _reigns(self.history)):
            self._text(10, self.y + 14, self.history.server(server))
            for timeline in np.unique(ops.timeline[mine][ops.server[mine] == server]):
                here = (ops.server[mine] == server) & (ops.timeline[mine] == timeline)
                cells = np.unique(pixel[here])
                breaks = np.flatnonzero(np.concatenate(([True], np.diff(cells) != 1)))
                lengths = np.diff(np.concatenate((breaks, [len(cells)])))
                d = "".join(
                    f"M{_LEFT + int(cells[b])} {self.y + 3:.0f}h{int(n)}v14h-{int(n)}z"
                    for b, n in zip(breaks, lengths, strict=True)
                )
                colour = f"var(--t{(int(timeline) - 1) % 6 + 1})"
                self.out.append(f'<path d="{d}" fill="{colour}"/>')
                x = _LEFT + int(cells[0])
                self._text(x + 3, self.y + 14, f"timeline {timeline}", "on")
            self.y += _LANE_H
        self.y += 6

    def _staleness(self) -> None:
        stale = staleness(self.history, _replica_reads(self.history))
        if not len(stale.index):
            return
        bins = _PLOT // 2
        at = (self.history.ops.invoke[stale.index] - self.history.began) / 1e9 / self.span_s * bins
        at = np.clip(at, 0, bins - 1).astype(np.int64)
        worst = np.zeros(bins)
        order = np.argsort(stale.age_s, kind="stable")
        worst[at[order]] = stale.age_s[order]  # the last assignment to a bin wins: the largest
        most = max(float(worst.max()), 0.001)
        base = self.y + _STALE_H
        d = "".join(
            f"M{_LEFT + 2 * i} {base:.0f}v-{worst[i] / most * (_STALE_H - 6):.1f}h2V{base:.0f}z"
            for i in np.flatnonzero(worst)
        )
        self.out.append(f'<path class="unsafe" d="{d}"/>')
        self.out.append(f'<path class="grid" d="M{_LEFT} {base:.0f}h{_PLOT}"/>')
        self._text(10, self.y + 14, "replica staleness")
        self._text(10, self.y + 28, f"most {most * 1e3:.0f} ms", "soft")
        self.y = base + 8

    def _axis(self, top: float) -> None:
        step = next(
            (
                s
                for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
                if self.span_s / s <= 14
            ),
            600,
        )
        for i in range(int(self.span_s / step) + 1):
            x = _LEFT + i * step / self.span_s * _PLOT
            self.out.append(f'<path class="grid" d="M{x:.1f} {top:.0f}V{self.y:.0f}"/>')
            self._text(x, self.y + 13, f"{i * step:g} s", "soft", ' text-anchor="middle"')
        self.y += 18

    def _shade(self, top: float) -> None:
        drawn = [o for o in self.outages if not o.reads and o.session == "scout"]
        least_s = max((o.upper_s for o in drawn), default=0.0) / 3
        for outage in drawn:
            if outage.upper_s < least_s:
                continue
            x, end = self._x(outage.began[0]), self._x(outage.ended[1])
            if end - x < _THINNEST:
                continue  # hundreds of slivers on a busy machine would hide what matters
            self.out.append(
                f'<rect class="out" x="{x:.1f}" y="{top:.0f}" width="{max(end - x, 1):.1f}" '
                f'height="{self.y - 18 - top:.0f}"/>'
            )

    def _marks(self, top: float) -> None:
        """Draw numbered lines and a legend; what happens all the time is told, not drawn."""
        told = [
            (e, text) for e in self.history.events if _is_news(e) and (text := describe_event(e))
        ]
        more = len(told) - _MAX_MARKS
        told = _chosen(told, _MAX_MARKS)
        self.y += 6
        for number, (event, text) in enumerate(told, 1):
            x = min(max(self._x(event["at"]), _LEFT), _WIDTH - _RIGHT)
            self.out.append(
                f'<path class="mark" d="M{x:.1f} {top - 4:.0f}V{self.y - 24:.0f}"><title>'
                f"{escape(text)}</title></path>"
            )
            self._text(x + 2, top + 5 + 11 * ((number - 1) % 5), str(number), "soft")
        for number, (event, text) in enumerate(told, 1):
            self.y += 14
            self._text(
                10, self.y, f"{number}.  {self.history.seconds(event['at']):.3f} s  {text[:150]}"
            )
        if more > 0:
            self.y += 14
            self._text(
                10,
                self.y,
                f"… and {more} less important events, all in the JSON beside this",
                "soft",
            )
