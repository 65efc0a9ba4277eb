"""A cluster that looks like production is not disturbed because somebody forgot to switch context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_pgo_eks.errors import UsageProblem

_WORDS = frozenset({"prod", "production", "prd", "live"})
_NOT = frozenset({"non", "not", "no", "pre"})
_KEYS = frozenset({"env", "environment", "stage", "tier", "environment-type", "lifecycle"})


def looks_like_production(text: str) -> bool:
    """Whether a word of ``text`` says production, and the one before does not deny it."""
    words = re.split(r"[^a-z0-9]+", text.lower())
    return any(
        word in _WORDS and (index == 0 or words[index - 1] not in _NOT)
        for index, word in enumerate(words)
    )


def refuse(names: Mapping[str, str], objects: Iterable[Mapping[str, Any]]) -> None:
    """Refuse names (by what they name) and labels that say production.

    :raises UsageProblem: names the one that does, and the option that allows it.
    """
    for what, name in names.items():
        if looks_like_production(name):
            raise _refusal(f"{what} {name!r}")
    for one in objects:
        meta = one["metadata"]
        for key, value in {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}.items():
            if key.rpartition("/")[2].lower() in _KEYS and looks_like_production(str(value)):
                raise _refusal(f"the label {key}={value} of {one.get('kind')} {meta['name']!r}")


def _refusal(what: str) -> UsageProblem:
    return UsageProblem(
        f"{what} looks like production, and this suite kills databases; choose another context, or "
        "say --pgo-allow-production"
    )
