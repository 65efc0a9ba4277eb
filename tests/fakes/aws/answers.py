"""What every service of the fake is made of: refusals, tags, filters, pages."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Params = Mapping[str, Any]
Answer = dict[str, Any]
Thing = dict[str, Any]


class Refused(Exception):
    """What AWS answers instead: an error code, a sentence, an HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.code, self.message, self.status)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(found: Any) -> dict[str, str]:
    if isinstance(found, Mapping):
        return dict(found)
    return {
        each.get("Key", each.get("key")): each.get("Value", each.get("value"))
        for each in found or ()
    }


def shown(thing: Thing) -> Thing:
    """Return a thing as AWS shows it: without what only the fake remembers."""
    found = {key: value for key, value in thing.items() if not key.startswith("_")}
    if "_tags" in thing:
        found["Tags"] = tag_list(thing["_tags"])
    return found


def matching(
    things: Iterable[Thing], filters: Sequence[Params], fields: Mapping[str, Callable[[Thing], Any]]
) -> list[Thing]:
    """Return those that every filter lets through; an unknown filter is an error, as on AWS."""
    found = list(things)
    for each in filters:
        name, wanted = each["Name"], [str(value) for value in each["Values"]]
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            found = [t for t in found if _any(t["_tags"].get(key), wanted)]
        elif name == "tag-key":
            found = [t for t in found if any(_any(key, wanted) for key in t["_tags"])]
        elif name in fields:
            found = [t for t in found if _any(fields[name](t), wanted)]
        else:
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
    return found


def _any(value: Any, wanted: list[str]) -> bool:
    if value is None:
        return False
    values = value if isinstance(value, list) else [value]
    return any(fnmatch.fnmatchcase(str(v), pattern) for v in values for pattern in wanted)


def page(items: list[Any], params: Params, key: str, token: str, size: int) -> Answer:
    """Return one page of ``items``: a list that is longer than a page has a token to go on with."""
    begin = int(params.get(token) or 0)
    answer: Answer = {key: items[begin : begin + size]}
    if begin + size < len(items):
        answer[token] = str(begin + size)
    return answer
