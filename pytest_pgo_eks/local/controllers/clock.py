"""Times as the API writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def stamp(epoch_s: float | None = None) -> str:
    """Return a time (default: now) as RFC 3339 with whole seconds, as ``metav1.Time`` is written."""
    moment = datetime.fromtimestamp(time.time() if epoch_s is None else epoch_s, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str | None) -> float:
    """Return an RFC 3339 time, with or without a fraction, in seconds since 1970; 0 for none."""
    if not text:
        return 0.0
    return datetime.fromisoformat(text).timestamp()
