"""Times as Go writes them: durations as 1h30m, and the layouts of --time-format."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ciliate_hubble.cli.flags import UsageError

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_ZONED = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|[+-]\d\d:\d\d))?")
_MAIL = "%a, %d %b %Y %H:%M:%S %z"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def duration(what: str, text: str) -> int:
    """Nanoseconds of a duration as `1h30m`, `2.5s`, `300ms`. Raises UsageError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    parts = list(_PART.finditer(rest))
    if not parts or "".join(part.group() for part in parts) != rest:
        raise UsageError(f"{what}: {text!r} is no duration; write 30s, 5m or 1h30m")
    return sign * sum(round(float(part[1]) * _UNITS[part[2]]) for part in parts)


def moment(what: str, text: str, now: int) -> int:
    """Nanoseconds since the epoch of a time, or of so long before `now`. Raises UsageError."""
    try:
        return now - duration(what, text)
    except UsageError:
        pass
    if (found := _ZONED.fullmatch(text)) is not None:
        day, hour, minute, second, fraction, zone = found.groups()
        try:
            whole = datetime.fromisoformat(
                f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}{'+00:00' if zone in (None, 'Z') else zone}"
            )
        except ValueError as error:
            raise UsageError(f"{what}: {text!r}: {error}") from error
        return _nanoseconds(whole) + int((fraction or "0").ljust(9, "0"))
    try:
        return _nanoseconds(datetime.strptime(text, _MAIL))
    except ValueError:
        raise UsageError(
            f"{what}: {text!r} is no time; write 5m for five minutes ago, 2026-01-31, or 2026-01-31T12:00:00Z"
        ) from None


def _nanoseconds(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def elapsed(nanoseconds: int) -> str:
    """A duration in whole seconds, as Go prints it: 1h2m3s, 2m0s, 5s."""
    minutes, seconds = divmod(round(nanoseconds / 1e9), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


def _fraction(nanoseconds: int, digits: int) -> str:
    """At most so many digits of a second's fraction, without zeros at the end."""
    text = f"{nanoseconds:09d}"[:digits].rstrip("0")
    return f".{text}" if text else ""


def _zone(when: datetime, colon: bool) -> str:
    offset = when.strftime("%z") or "+0000"
    if not colon:
        return offset
    return "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"


Layout = Callable[[datetime, int], str]


def _zoned(pattern: str, digits: int = 0) -> Layout:
    return lambda when, ns: when.strftime(pattern) + _fraction(ns, digits) + _zone(when, colon=True)


_LAYOUTS: dict[str, Layout] = {
    "StampMilli": lambda w, ns: f"{_MONTHS[w.month - 1]} {w.day:2d} {w:%H:%M:%S}.{ns // 10**6:03d}",
    "YearMonthDay": lambda w, _: f"{w:%Y-%m-%d}",
    "YearMonthDayHour": _zoned("%Y-%m-%dT%H"),
    "YearMonthDayHourMinute": _zoned("%Y-%m-%dT%H:%M"),
    "RFC3339": _zoned("%Y-%m-%dT%H:%M:%S"),
    "RFC3339Milli": _zoned("%Y-%m-%dT%H:%M:%S", 3),
    "RFC3339Micro": _zoned("%Y-%m-%dT%H:%M:%S", 6),
    "RFC3339Nano": _zoned("%Y-%m-%dT%H:%M:%S", 9),
    "RFC1123Z": lambda w, _: (
        f"{_DAYS[w.weekday()]}, {w.day:02d} {_MONTHS[w.month - 1]} {w:%Y %H:%M:%S} {_zone(w, colon=False)}"
    ),
}


def layout(name: str) -> Callable[[int, int], str]:
    """What prints a time, given as seconds since the epoch and nanoseconds, in local time. Raises UsageError."""
    if name not in _LAYOUTS:
        raise UsageError(f"--time-format: {name!r} is none of {', '.join(_LAYOUTS)}")
    form = _LAYOUTS[name]
    return lambda seconds, nanoseconds: form(datetime.fromtimestamp(seconds).astimezone(), nanoseconds)
