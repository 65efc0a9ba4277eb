"""Secrets: masked where they are held, and filtered from text on every way out."""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

MASK = "********"

# What a credential looks like when nobody registered it: bearer tokens, passwords in URIs (PostgreSQL
# takes a slash in one) and in libpq key=value strings, SCRAM verifiers, private keys.
# Each with a word, in small letters, without which there is none: to look for it costs a tenth of the
# pattern, and a run's report is filtered string by string. A key may be cut off before its end.
_SHAPES = (
    ("bearer", re.compile(r"(?i)(bearer\s+)[a-z0-9._~+/=-]{16,}")),
    ("postgres", re.compile(r"(?i)(postgres(?:ql)?://[^:/@\s]+:)[^@\s]+(?=@)")),
    ("://", re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^@/\s]+(?=@)")),
    ("password", re.compile(r"(?i)(\bpassword\s*[=:]\s*['\"]?)[^\s'\"&]{4,}")),
    ("scram-sha-256", re.compile(r"(SCRAM-SHA-256\$\d+:)[A-Za-z0-9+/=$:]+")),
    ("private key", re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(?=-----END|\Z)")),
)

_CREDENTIAL = re.compile(
    r"(?i)passw|passphrase|secret|token|credential|private_?key|api_?key|access_?key|auth(?!or)"
)
_NO_CREDENTIAL = re.compile(r"(?i)_(file|path|dir|url|uri|host|user|name|sock|type|mode|ttl|arn)$")


class Secret(str):
    """A string that does not show itself in ``repr``; ``str()`` and formatting still give it.

    Only what is meant to be used as a credential is held in one. Creating one registers its value
    with the filter, so it never reaches a report even by way of a third party's message.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        register(value)
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"


_known: set[str] = set()
_ordered: tuple[str, ...] = ()
"""The same, the longest first: one secret may begin with another."""
_lock = threading.Lock()


def register(value: str) -> None:
    """Make ``filtered`` hide ``value`` from now on, however it is written. Values under four characters are ignored."""
    global _ordered  # noqa: PLW0603 - replaced whole, so that readers need no lock
    if len(value) >= 4:
        with _lock:
            _known.update(_written(value))
            _ordered = tuple(sorted(_known, key=len, reverse=True))


def register_environment(environment: Mapping[str, str]) -> None:
    """Register what lies in variables whose names speak of a credential.

    Not where the name says that a file, an address or a user is meant, nor values so short or so plain
    that they would be masked everywhere.
    """
    for name, value in environment.items():
        if _CREDENTIAL.search(name) and not _NO_CREDENTIAL.search(name) and len(value) >= 8:
            register(value)


def _written(value: str) -> set[str]:
    """Return ``value`` and how JSON, a shell, a URL, HTML, Python and Kubernetes write it."""
    data = value.encode("utf-8", "replace")
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(str(value))[1:-1],
        value.replace("'", "'\"'\"'"),
        quote(data, safe=""),
        quote_plus(data),
        html.escape(value),
        base64.b64encode(data).decode(),
    }


def filtered(text: str) -> str:
    """Return ``text`` with every registered secret and everything of a secret's shape masked."""
    for value in _ordered:
        if value in text:
            text = text.replace(value, MASK)
    lowered = text.lower()
    for word, shape in _SHAPES:
        if word in lowered:
            text = shape.sub(rf"\g<1>{MASK}", text)
    return text


def masked(value: Any) -> Any:
    """Return JSON-able ``value`` with :func:`filtered` applied to every string in it but keys.

    Filtering the text of a JSON document instead would miss a secret that JSON writes otherwise: one
    with a quotation mark, a backslash or a letter beyond ASCII.
    """
    if isinstance(value, str):
        return filtered(value)
    if isinstance(value, Mapping):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value


def filter_file(path: Path) -> None:
    """Apply :func:`filtered` to a file that somebody else wrote; what is no text stays as it is."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if (clean := filtered(text)) != text:
        path.write_text(clean, "utf-8")
