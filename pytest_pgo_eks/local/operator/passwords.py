"""Generated passwords and the SCRAM verifiers PostgreSQL stores for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

_LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# What the operator's ASCII class adds: nothing a shell, a connection string or SQL would quote away.
_PUNCTUATION = "()*+,-./:;<=>?@[]^_{}|"
_ITERATIONS = 4096


def generate(length: int, kind: str = "ASCII") -> str:
    """Return a random password; ``kind`` is ``ASCII`` or ``AlphaNumeric``."""
    characters = _LETTERS_AND_DIGITS + ("" if kind == "AlphaNumeric" else _PUNCTUATION)
    return "".join(secrets.choice(characters) for _ in range(length))


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return ``SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`` (RFC 5803) for a password."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *parts)


def matches(password: str, stored: str) -> bool:
    """Say whether a verifier belongs to a password."""
    try:
        salt = base64.b64decode(stored.split("$")[1].split(":")[1])
    except (IndexError, ValueError):
        return False
    return hmac.compare_digest(verifier(password, salt), stored)


def _prepared(password: str) -> str:
    """SASLprep (RFC 4013); PostgreSQL takes a password that it forbids as it stands."""
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if not normal or any(check(c) for c in normal for check in forbidden):
        return password
    right_to_left = [stringprep.in_table_d1(c) for c in normal]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(c) for c in normal)
        or not (right_to_left[0] and right_to_left[-1])
    ):
        return password
    return normal
