"""The agent as one zip file, so that any image with Python 3.11 can run it."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

_TOP = b"import sys\nfrom agent.__main__ import start\nsys.exit(start())\n"


@functools.cache
def archive() -> bytes:
    """Return the agent's files as a zip that ``python FILE`` runs; the same bytes every time."""
    source = Path(__file__).with_name("agent")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("__main__.py"), _TOP)
        for path in sorted(source.glob("*.py")):
            entry = zipfile.ZipInfo(f"agent/{path.name}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, path.read_bytes())
    return out.getvalue()
