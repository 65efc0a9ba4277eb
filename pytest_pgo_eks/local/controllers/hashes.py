"""Short names made from content, in Kubernetes' alphabet."""

from __future__ import annotations

import json
from typing import Any

# apimachinery's rand.SafeEncodeString: no vowels and no look-alikes, so no word comes out.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def content_hash(content: Any, collisions: int = 0) -> str:
    """Return the hash of a JSON value: FNV-1a (32 bits), its decimal digits re-coded.

    The real one hashes Go's dump of the same value: same form, other characters.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if collisions:
        text += str(collisions)
    found = 0x811C9DC5
    for byte in text.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(found))
