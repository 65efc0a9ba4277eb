"""Whether this machine has a kubectl that speaks WebSocket."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

_NEEDED = 31


def _minor() -> int:
    """Return the minor version of the kubectl on PATH, 0 without one."""
    if shutil.which("kubectl") is None:
        return 0
    asked = ["kubectl", "version", "--client", "-o", "json"]
    done = subprocess.run(asked, capture_output=True, check=False, timeout=30)
    try:
        text = json.loads(done.stdout)["clientVersion"]["minor"]
    except (ValueError, KeyError):
        return 0
    return int("".join(letter for letter in text if letter.isdigit()) or 0)


needs_kubectl = pytest.mark.skipif(
    _minor() < _NEEDED, reason=f"there is no kubectl 1.{_NEEDED} or newer here"
)
