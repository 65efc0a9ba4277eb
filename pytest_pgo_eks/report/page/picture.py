"""A timeline's SVG, made fit to lie inside the page.

The file comes from the run's folder, which may be anybody's when a report is rendered again. So it
is taken apart and put together anew from a short list of elements and attributes: no script, link,
reference, style or event handler gets through. Its style sheet is left behind (the page's own knows
the classes, and the policy lets no other in); colours get the light ones as fallback, for viewers
that allow no style at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from pytest_pgo_eks.report.page.parts import esc
from pytest_pgo_eks.report.page.style import LIGHT, LIGHT_PICTURE

MAX_BYTES = 1 << 20
_ELEMENTS = {"svg", "g", "path", "rect", "line", "circle", "polyline", "text", "tspan", "title"}
_ATTRIBUTES = {
    "viewBox", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "dx", "dy", "width", "height",
    "points", "fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity",
    "text-anchor", "class", "transform",
}  # fmt: skip
# Numbers, path commands, colours, names of classes: nothing with a quotation mark, a colon or a slash.
_VALUE = re.compile(r"[\w\s#.,%()+-]*\Z", re.ASCII)
_VARIABLE = re.compile(r"var\(--([a-z0-9-]+)\)")
_COLOURS = {**LIGHT, **LIGHT_PICTURE}
_FALLBACK = {
    "soft": f' fill="{LIGHT["soft"]}"',
    "grid": f' fill="none" stroke="{LIGHT["line"]}"',
    "mark": f' stroke="{LIGHT["ink"]}" stroke-dasharray="3 3"',
    "out": ' fill="#dc2626" fill-opacity="0.13"',
    **{name: f' fill="{LIGHT_PICTURE[name]}"' for name in ("ok", "unsafe", "fail", "info")},
}
_SVG = "{http://www.w3.org/2000/svg}"


def inlined(path: Path, label: str) -> str | None:
    """Return the picture as a part of the page, or None where the file is none that we would draw."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            return None
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return redrawn(text, label)


def redrawn(text: str, label: str) -> str | None:
    """Return the picture in ``text`` from harmless parts alone; None where it is no SVG."""
    # Entities could make a small file a huge one; no picture of ours declares any.
    if "<!" in text:
        return None
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there is nothing to expand
    except ET.ParseError:
        return None
    if root.tag != f"{_SVG}svg" or not _VALUE.match(root.get("viewBox", "")):
        return None
    parts = [f'<svg viewBox="{root.get("viewBox", "")}" role="img" aria-label="{esc(label)}">']
    for child in root:
        _draw(child, parts)
    parts.append("</svg>")
    return "".join(parts)


def _draw(element: ET.Element, parts: list[str]) -> None:
    name = element.tag.removeprefix(_SVG)
    if name not in _ELEMENTS or name == "svg":
        return
    parts.append(f"<{name}")
    for attribute, value in element.items():
        if attribute in _ATTRIBUTES and _VALUE.match(value):
            parts.append(f' {attribute}="{_VARIABLE.sub(_with_fallback, value)}"')
    if "fill" not in element.attrib and "stroke" not in element.attrib:
        parts.append(_FALLBACK.get(element.get("class", ""), ""))
    inner: list[str] = []
    for child in element:
        _draw(child, inner)
    told = esc(element.text or "") if name in {"text", "tspan", "title"} else ""
    if told or inner or name in {"text", "tspan", "title", "g"}:
        parts += [">", told, *inner, f"</{name}>"]
    else:
        parts.append("/>")


def _with_fallback(found: re.Match[str]) -> str:
    colour = _COLOURS.get(found[1])
    return f"var(--{found[1]},{colour})" if colour else found[0]
