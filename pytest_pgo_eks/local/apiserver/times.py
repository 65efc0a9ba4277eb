"""Durations as kubectl writes them: ``5s``, ``3m12s``, ``26h``, ``4d2h``."""

from __future__ import annotations

import datetime as dt
import time


def human(seconds: float) -> str:
    """Write a duration with at most two units (``duration.HumanDuration``)."""
    total = int(seconds)
    if total < 0:
        return "<invalid>" if total < -1 else "0s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{total % 60}s" if total % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{years}y"


def parse(text: str) -> float:
    """Return a timestamp of the API as seconds since 1970."""
    return dt.datetime.fromisoformat(text).timestamp()


def since(text: str | None) -> str:
    """Return how long ago a timestamp of the API was."""
    if not text:
        return "<unknown>"
    return human(time.time() - parse(text))


def since_s(text: str) -> float:
    """Return how many seconds ago a timestamp of the API was."""
    return time.time() - parse(text)
