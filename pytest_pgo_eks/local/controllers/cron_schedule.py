"""Cron schedules as CronJobs understand them: five fields, or a macro."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_EVERY = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_LONGEST = timedelta(days=366 * 5)


@dataclass(frozen=True)
class Schedule:
    """The minutes at which a CronJob runs, or a fixed interval (``@every``)."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = True
    any_weekday: bool = True
    every: timedelta | None = None

    def next_after(self, moment: datetime, zone: tzinfo = UTC) -> datetime | None:
        """Return the first run strictly after ``moment``, in UTC; None within five years."""
        if self.every:
            return moment.astimezone(UTC).replace(microsecond=0) + self.every
        local = moment.astimezone(zone).replace(second=0, microsecond=0, tzinfo=None)
        limit = local + _LONGEST
        local += timedelta(minutes=1)
        while local < limit:
            if local.month not in self.months:
                local = (local.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
            elif not self._on(local):
                local = local.replace(hour=0, minute=0) + timedelta(days=1)
            elif local.hour not in self.hours:
                local = local.replace(minute=0) + timedelta(hours=1)
            elif local.minute not in self.minutes:
                local += timedelta(minutes=1)
            else:
                found = local.replace(tzinfo=zone).astimezone(UTC)
                # An hour that daylight saving skips does not exist; one that it repeats runs once.
                if found.astimezone(zone).replace(tzinfo=None) == local and found > moment:
                    return found
                local += timedelta(minutes=1)
        return None

    def _on(self, day: datetime) -> bool:
        in_month = day.day in self.days
        in_week = day.isoweekday() % 7 in self.weekdays
        # The rule of cron: both restricted means either will do.
        if self.any_day or self.any_weekday:
            return in_month and in_week
        return in_month or in_week


def parse(text: str) -> Schedule:
    """Read a schedule.

    :raises ValueError: says which field is wrong.
    """
    found = text.strip()
    if found.startswith("@every "):
        return Schedule(every=_interval(found.removeprefix("@every ").strip(), text))
    found = _MACROS.get(found.lower(), found)
    if found.startswith("@"):
        raise ValueError(f"unrecognized descriptor: {text}")
    fields = found.split()
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: {text}")
    sets = [
        _field(field, low, high, names)
        for field, (low, high), names in zip(
            fields, _BOUNDS, ([], [], [], ["", *_MONTHS], _DAYS), strict=True
        )
    ]
    return Schedule(
        minutes=sets[0],
        hours=sets[1],
        days=sets[2],
        months=sets[3],
        weekdays=frozenset(day % 7 for day in sets[4]),
        any_day=fields[2][0] in "*?",
        any_weekday=fields[4][0] in "*?",
    )


def _interval(text: str, whole: str) -> timedelta:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = _EVERY.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"failed to parse duration {whole}")
    return timedelta(seconds=max(1.0, round(sum(float(n) * units[u] for n, u in parts))))


def _field(text: str, low: int, high: int, names: list[str]) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, [], text) if slash else 1
        if span in ("*", "?"):
            first, last = low, high if high != 7 else 6
        else:
            start, dash, end = span.partition("-")
            first = _number(start, names, text)
            last = _number(end, names, text) if dash else first
            if slash and not dash:
                last = high  # "5/15" is "5-59/15"
        if step < 1 or first < low or last > high or first > last:
            raise ValueError(f"{text!r} is out of the range {low}-{high}")
        values |= set(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, names: list[str], field: str) -> int:
    if text.lower() in names and text:
        return names.index(text.lower())
    if not text.isdecimal():
        raise ValueError(f"failed to parse {text!r} in {field!r}")
    return int(text)
