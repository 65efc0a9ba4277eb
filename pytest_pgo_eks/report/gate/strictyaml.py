"""YAML as people mean it: no anchors, no tags, no key twice, no dates that turn into something else.

Every place is remembered with its line, so that what is wrong can be pointed at.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.errors import UsageProblem

# A policy is a page of text.
_MOST_BYTES = 256 * 1024
_MOST_DEPTH = 20
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Text:
    """A parsed file: ``value``, and the line of every place in it (``required[0].tag``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, int] = {}
        self.value: Any = self._plain(self._root(), "")

    def at(self, place: str) -> str:
        """Return ``file:line`` of a place, or of the nearest one around it."""
        while place and place not in self._lines:
            place = re.sub(r"(\.[^.\[]+|\[\d+\]|^[^.\[]+)$", "", place)
        return f"{self.path}:{self._lines.get(place, 1)}"

    def _root(self) -> yaml.Node:
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                raise UsageProblem(f"{self.path}: larger than {_MOST_BYTES >> 10} KiB")
            text = self.path.read_text("utf-8")
            self._look_over(text)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise UsageProblem(f"{self.path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UsageProblem(f"{self.path}: not UTF-8 at byte {error.start}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UsageProblem(f"{self.path}:{line}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise UsageProblem(f"{self.path}: not YAML: {' '.join(str(error).split())}") from None
        if node is None:
            raise UsageProblem(f"{self.path}: the file is empty")
        return node

    def _look_over(self, text: str) -> None:
        """Refuse what would cost much, or do something, before anything is built of it."""
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UsageProblem(f"{self.path}:{line}: anchors and aliases are not used here")
            if tag := getattr(event, "tag", None):
                raise UsageProblem(f"{self.path}:{line}: tags ({tag}) have no use here")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_DEPTH:
                raise UsageProblem(f"{self.path}:{line}: nested too deeply")

    def _plain(self, node: yaml.Node, place: str) -> Any:
        self._lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._plain(inner, f"{place}[{number}]") for number, inner in enumerate(node.value)
            ]
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in node.value:
            name = str(key.value)
            below = f"{place}.{name}" if place else name
            if not isinstance(key, yaml.ScalarNode) or name in found:
                line = key.start_mark.line + 1
                what = f"{name!r} stands here twice" if name in found else "a key that is no word"
                raise UsageProblem(f"{self.path}:{line}: {what}")
            found[name] = self._plain(inner, below)
            self._lines[below] = key.start_mark.line + 1
        return found

    def _scalar(self, node: yaml.Node, place: str) -> Any:
        kind = str(node.tag).rpartition(":")[2]
        if kind == "timestamp" and _DATE.fullmatch(node.value):
            return node.value  # a date stays the text that it is
        if kind not in {"str", "int", "float", "bool", "null"}:
            raise UsageProblem(
                f"{self.at(place)}: {node.value!r} is a {kind}, which has no use here"
            )
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise UsageProblem(f"{self.at(place)}: {error}") from None
