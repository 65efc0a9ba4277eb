"""A series in the size of a word: SVG without script, without a file, readable aloud."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.report.page.parts import esc
from pytest_pgo_eks.report.trend.changes import Change
from pytest_pgo_eks.report.trend.series import Point

WIDTH, HEIGHT = 220, 36
_EDGE = 4
# So many of the newest points are drawn; more would be a band of ink.
NEWEST = 60

STYLE = (
    ".spark{display:block;width:13.75rem;height:2.25rem}"
    ".spark .i{stroke:var(--soft);stroke-width:1.5;stroke-linecap:round}"
    ".spark .l{stroke:var(--soft);stroke-width:1;fill:none;opacity:.6}"
    ".spark .m{stroke:var(--line);stroke-width:2}"
    ".spark .c{stroke:var(--violation);stroke-width:1;stroke-dasharray:3 2}"
    ".spark .b{stroke:var(--pass)}"
    ".spark .pass{fill:var(--ink)}.spark .violation{fill:var(--violation)}"
    ".spark .last{fill:var(--link)}"
)


def sparkline(points: Sequence[Point], unit: str, change: Change | None = None) -> str:
    """Return the newest points as a drawing: intervals as strokes, the change as a broken line."""
    shown = points[-NEWEST:]
    skipped = len(points) - len(shown)
    top = max([point.upper or point.lower for point in shown], default=0.0) or 1.0

    def x(number: int) -> float:
        return _EDGE + number * (WIDTH - 2 * _EDGE) / max(len(shown) - 1, 1)

    def y(value: float) -> float:
        return HEIGHT - _EDGE - value / top * (HEIGHT - 2 * _EDGE)

    parts = []
    if change is not None and change.at > skipped:
        at = (x(change.at - skipped - 1) + x(change.at - skipped)) / 2
        kind = "c" if change.worse else "c b"
        parts.append(f'<path class="{kind}" d="M{at:.1f} 0V{HEIGHT}"/>')
        for level, begin, end in (
            (change.before, x(0), at),
            (change.after, at, x(len(shown) - 1)),
        ):
            parts.append(f'<path class="m" d="M{begin:.1f} {y(level):.1f}H{end:.1f}"/>')
    line = " ".join(f"{x(n):.1f},{y(point.middle):.1f}" for n, point in enumerate(shown))
    parts.append(f'<polyline class="l" points="{line}"/>')
    strokes = "".join(
        f"M{x(n):.1f} {y(point.lower):.1f}V{y(point.upper if point.upper is not None else top):.1f}"
        for n, point in enumerate(shown)
    )
    parts.append(f'<path class="i" d="{strokes}"/>')
    for n, point in enumerate(shown):
        kind = "violation" if point.verdict == "violation" else "pass"
        kind = "last" if n == len(shown) - 1 and kind == "pass" else kind
        radius = 2.6 if kind != "pass" else 1.6
        place = f'cx="{x(n):.1f}" cy="{y(point.middle):.1f}"'
        parts.append(f'<circle class="{kind}" {place} r="{radius}"/>')
    return (
        f'<svg class="spark" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" aria-label="{esc(_told(shown, unit))}">{"".join(parts)}</svg>'
    )


def _told(points: Sequence[Point], unit: str) -> str:
    values = [point.middle for point in points]
    return f"{len(points)} runs, {min(values):g} to {max(values):g}{unit}, the newest {values[-1]:g}{unit}"
