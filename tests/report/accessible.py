"""Rules for the page that need no browser: structure, names, safety, contrast.

In the manner of axe: each rule yields a line for whatever breaks it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"col", "meta", "br", "path", "rect", "line", "circle", "polyline", "hr", "img", "input"}
_FORBIDDEN = {
    "script", "iframe", "object", "embed", "link", "base", "form", "img", "audio", "video", "use",
    "image", "foreignobject", "animate", "set", "template", "noscript",
}  # fmt: skip


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    parts: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            yield from child.walk()

    def words(self) -> str:
        told = (part if isinstance(part, str) else part.words() for part in self.parts)
        return " ".join(" ".join(told).split())

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    def __str__(self) -> str:
        told = " ".join(f'{name}="{value}"' for name, value in self.attributes.items())
        return f"<{self.name} {told}>"[:120]


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = self.root
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice: {names}")
        found = Element(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.children.append(found)
        self.open.parts.append(found)
        if tag not in _VOID:
            self.open = found

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if self.open.name != tag:
            self.problems.append(f"</{tag}> closes <{self.open.name}>")
            return
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.parts.append(data)


def parsed(page: str) -> tuple[Element, list[str]]:
    """Return the page as a tree, and what is wrong with its nesting."""
    tree = _Tree()
    tree.feed(page)
    tree.close()
    if tree.open is not tree.root:
        tree.problems.append(f"<{tree.open.name}> is never closed")
    return tree.root, tree.problems


def problems(page: str) -> list[str]:
    """Return everything that is wrong with the page."""
    root, found = parsed(page)
    every = list(root.walk())
    rules = (_document, _headings, _references, _names, _tables, _safety, _policy)
    return [*found, *(line for rule in rules for line in rule(every))]


def _named(every: list[Element], name: str) -> list[Element]:
    return [one for one in every if one.name == name]


def _document(every: list[Element]) -> Iterator[str]:
    (html,) = _named(every, "html")
    if html.attributes.get("lang") != "en":
        yield "the page does not say its language"
    if [
        one.words() for one in _named(every, "title") if one.parent and one.parent.name == "head"
    ] in ([], [""]):
        yield "the page has no title"
    for landmark in ("main", "header", "nav", "footer"):
        if len(_named(every, landmark)) != 1:
            yield f"there is not exactly one <{landmark}>"
    if not all(one.attributes.get("aria-label") for one in _named(every, "nav")):
        yield "the navigation has no name"
    skip = next((one for one in every if one.name == "a"), None)
    if skip is None or skip.attributes.get("href") != "#main":
        yield "the first link does not lead past the navigation"
    (body,) = _named(every, "body")
    outside = [
        one for one in body.children if one.name not in {"main", "header", "nav", "footer", "a"}
    ]
    if outside or body.text.strip():
        yield f"outside of all landmarks: {outside or body.text.strip()[:60]}"


def _headings(every: list[Element]) -> Iterator[str]:
    before = 0
    for one in every:
        if re.fullmatch(r"h[1-6]", one.name):
            level = int(one.name[1])
            if level > before + 1:
                yield f"heading {one.words()[:60]!r} of level {level} follows one of level {before}"
            if not one.words():
                yield f"{one} is empty"
            before = level
    if len(_named(every, "h1")) != 1:
        yield "there is not exactly one h1"


def _references(every: list[Element]) -> Iterator[str]:
    ids = Counter(one.attributes["id"] for one in every if "id" in one.attributes)
    yield from (f"id {name!r} is there {count} times" for name, count in ids.items() if count > 1)
    for one in every:
        for name in one.attributes.get("aria-labelledby", "").split():
            if name not in ids:
                yield f"{one} is named by something that is not there"
        target = one.attributes.get("href", "")
        if target.startswith("#") and target[1:] not in ids:
            yield f"{one} leads nowhere"


def _names(every: list[Element]) -> Iterator[str]:
    for one in every:
        label = one.attributes.get("aria-label", "").strip()
        if one.name == "a" and not (label or one.words()):
            yield f"{one} has no text"
        if one.name == "svg":
            hidden = one.attributes.get("aria-hidden") == "true"
            if not hidden and (one.attributes.get("role") != "img" or not label):
                yield f"{one} is neither named nor hidden"
        if "tabindex" in one.attributes:
            if one.attributes["tabindex"] != "0":
                yield f"{one} changes the order of the keyboard"
            if not (label and one.attributes.get("role")):
                yield f"{one} takes the keyboard and does not say what it is"
        if one.name == "section" and not one.attributes.get("aria-labelledby"):
            yield f"{one} has no name"
        if one.name == "details" and (not one.children or one.children[0].name != "summary"):
            yield f"{one} has no summary"
        if one.name == "summary" and not one.words():
            yield f"{one} is empty"


def _tables(every: list[Element]) -> Iterator[str]:
    for table in _named(every, "table"):
        inside = list(table.walk())
        if not any(one.name == "caption" and one.words() for one in inside):
            yield f"{table} has no caption"
        yield from (
            f"{one} has no scope"
            for one in inside
            if one.name == "th" and "scope" not in one.attributes
        )
        for row in (one for one in inside if one.name == "tr"):
            if not row.children or row.children[0].name != "th":
                yield f"a row of {table} has no heading"
    for one in every:
        if one.name == "li" and one.parent and one.parent.name not in {"ul", "ol"}:
            yield f"{one} is in no list"
        if one.name in {"dt", "dd"} and one.parent and one.parent.name not in {"dl", "div"}:
            yield f"{one} is in no list"


def _safety(every: list[Element]) -> Iterator[str]:
    for one in every:
        if one.name in _FORBIDDEN:
            yield f"{one} is on the page"
        for name, value in one.attributes.items():
            if name.startswith("on") or name in {"style", "src", "srcset", "action", "formaction"}:
                yield f"{one} has an attribute {name}"
            if name.endswith("href") and not _harmless(value):
                yield f"{one} leads to {value[:80]!r}"
            if (
                name.endswith("href")
                and value.startswith("http")
                and "noreferrer" not in one.attributes.get("rel", "")
            ):
                yield f"{one} tells another site where it was followed"
            if re.search(r"url\s*\(", value, re.IGNORECASE):
                yield f"{one} refers to something in {name}"


def _harmless(target: str) -> bool:
    if target.startswith(("#", "https://", "http://")):
        return True
    first = target.partition("/")[0]
    return not target.startswith("/") and ":" not in first and ".." not in target.split("/")


def _policy(every: list[Element]) -> Iterator[str]:
    policies = [
        one.attributes.get("content", "")
        for one in _named(every, "meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    styles = _named(every, "style")
    if len(policies) != 1 or len(styles) != 1:
        yield f"{len(policies)} policies and {len(styles)} style sheets"
        return
    policy, style = policies[0], styles[0].text
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    if f"style-src 'sha256-{digest}'" not in policy:
        yield "the policy does not let the page's own style sheet in"
    if "default-src 'none'" not in policy or "unsafe" in policy or "*" in policy:
        yield f"the policy is not strict: {policy}"
    if re.search(r"url\(|@import|@font-face|expression\(", style):
        yield "the style sheet loads something"
    head = styles[0].parent
    metas = [one for one in head.children if one.name in {"meta", "style"}] if head else []
    if metas and metas[-1].name != "style":
        yield "the policy comes behind the style sheet"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (#rrggbb) as WCAG 2.2 defines it: 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
