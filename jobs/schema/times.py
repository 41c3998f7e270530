"""Reads dates and times in the format that the contract names: ISO 8601, epoch numbers, or a pattern of letters.

Each format reads one value in plain Python, which decides, and whole columns with Arrow. A column with an unusual value
is read one by one. Times are exact to the microsecond; further digits are dropped, as in ISO 8601 texts of nanoseconds.

Local times have one meaning, that of java.time and Spark: one that occurs twice, as clocks are set back, is the earlier
one; one that is skipped, as clocks are set forward, is moved forward by the gap. ZoneInfo's fold=0 is that rule.
Arrow's `assume_timezone` has no such rule, and on some platforms none of a zone's rules after 2037.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from jobs.common.times import parse_time
from jobs.schema.numbers import MAX_CHARACTERS, exact_ratio, integer_or_text, unwrapped_number

ISO = "iso"
# Microseconds in the unit of each epoch format.
EPOCHS = {"epoch_seconds": 1_000_000, "epoch_millis": 1_000, "epoch_micros": 1}
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")  # fmt: skip
# Regular expressions, for Python and RE2 alike, of the letters of a pattern, and what each stands for.
_TWO, _ONE_OR_TWO = "[0-9]{2}", "[0-9]{1,2}"
_ELEMENTS: dict[str, tuple[str, str]] = {
    "yyyy": ("year", "[0-9]{4}"),
    "yy": ("short_year", _TWO),
    "M": ("month", _ONE_OR_TWO),
    "MM": ("month", _TWO),
    "MMM": ("month_name", f"(?i:{'|'.join(name[:3] for name in _MONTHS)})"),
    "MMMM": ("month_name", f"(?i:{'|'.join(_MONTHS)})"),
    "d": ("day", _ONE_OR_TWO),
    "dd": ("day", _TWO),
    "H": ("hour", _ONE_OR_TWO),
    "HH": ("hour", _TWO),
    "h": ("hour_of_12", _ONE_OR_TWO),
    "hh": ("hour_of_12", _TWO),
    "m": ("minute", _ONE_OR_TWO),
    "mm": ("minute", _TWO),
    "s": ("second", _ONE_OR_TWO),
    "ss": ("second", _TWO),
    "a": ("half", "(?i:am|pm)"),
    "X": ("offset", "Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"),
}
_KNOWN = f"{', '.join(_ELEMENTS)} and S for each digit of a fraction; other letters in quotes: 'T'"
# What can vary in length, or is followed by one digit too many: "1112026" as dMyyyy has two meanings.
_OPEN = frozenset({"M", "d", "H", "h", "m", "s", "S"})
_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']")
_CLOCK_12 = pa.array([f"{hour:02}{half}" for half in ("am", "pm") for hour in (12, *range(1, 12))])
_TWO_DIGITS = pa.array([f"{number:02}" for number in range(24)])
_ISO_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_ISO_OFFSET = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
_EPOCH = datetime(1970, 1, 1)
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_UTC_TIMES = pa.timestamp("us", tz="UTC")
# Years 1 to 9999, which Python, Spark and Athena can show.
_FIRST = (datetime.min - _EPOCH) // timedelta(microseconds=1)
_LAST = (datetime.max - _EPOCH) // timedelta(microseconds=1)


class TimeFormat:
    """A format of a column of type date or timestamp. Make it with `time_format`.

    native   the type that msgspec decodes its values as
    """

    native: Any = str | None

    def __init__(self, kind: str, form: str, zone: ZoneInfo | None) -> None:
        self.kind, self.form, self.zone = kind, form, zone

    def read(self, value: Any) -> date | datetime:
        """The date, or the time in UTC, of a value that is not absent. Raises ValueError if it has another format."""
        raise NotImplementedError

    def to_arrow(self, values: list[Any]) -> pa.Array:
        """The values as Arrow; null for those that are absent or have another format."""
        try:
            found = self._usual(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            found = None
        if found is not None and pa.types.is_timestamp(found.type) and not _in_range(found):
            found = None
        if found is None:
            return pa.array(
                list(map(self._read_or_null, values)), _UTC_TIMES if self.kind == "timestamp" else pa.date32()
            )
        return found

    def _usual(self, values: list[Any]) -> pa.Array | None:
        """The values as Arrow, if all are of a form whose conversion is exact; else None, or Arrow's errors."""
        raise NotImplementedError

    def _read_or_null(self, value: Any) -> date | datetime | None:
        try:
            return None if value is None or value == "" else self.read(value)
        except ValueError:
            return None


class _IsoTimes(TimeFormat):
    def read(self, value: Any) -> datetime:
        if not isinstance(value, str):
            raise ValueError
        return parse_time(value, default_zone=self.zone or UTC)

    def _usual(self, values: list[Any]) -> pa.Array | None:
        texts = _texts(values)
        if _all_match(texts, _ISO_TIME + _ISO_OFFSET):
            return texts.cast(_UTC_TIMES)
        if _all_match(texts, f"{_ISO_TIME}$"):
            return _as_utc(texts.cast(pa.timestamp("us")), self.zone)
        return None


class _Epoch(TimeFormat):
    # msgspec keeps a number's text only for fields of any type.
    native = Any

    def read(self, value: Any) -> date | datetime:
        value = unwrapped_number(value)
        unit = EPOCHS[self.form]
        if isinstance(value, str):
            numerator, denominator = exact_ratio(value)
            micros = numerator * unit // denominator
        elif isinstance(value, int) and not isinstance(value, bool):
            micros = value * unit
        else:
            raise ValueError
        if not _FIRST <= micros <= _LAST:
            raise ValueError
        time = (_EPOCH + timedelta(microseconds=micros)).replace(tzinfo=UTC)
        return time if self.kind == "timestamp" else local_time(time, self.zone).date()

    def _usual(self, values: list[Any]) -> pa.Array | None:
        if bool in set(map(type, values)):
            return None
        try:
            numbers = pa.array(values, pa.int64())
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            texts = _texts(values)
            if not _all_match(texts, "^[0-9]{1,18}$"):
                return None
            numbers = texts.cast(pa.int64())
        times = pc.multiply_checked(numbers, EPOCHS[self.form]).cast(_UTC_TIMES)
        if self.kind == "timestamp" or not _in_range(times):
            return times if self.kind == "timestamp" else None
        local = to_local(times, self.zone)
        return None if local is None else _dates(local)


class _Pattern(TimeFormat):
    def __init__(self, kind: str, form: str, zone: ZoneInfo | None) -> None:
        super().__init__(kind, form, zone)
        text, self._parts = _regular_expression(form)
        self._regex, self._re2 = re.compile(text, re.ASCII), f"^(?:{text})$"

    def read(self, value: Any) -> date | datetime:
        if isinstance(value, msgspec.Raw):
            value = integer_or_text(bytes(value).decode("ascii"))
            value = value if isinstance(value, int) else None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if abs(value) < 10**MAX_CHARACTERS else None
        found = self._regex.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"{value!r} does not have the format {self.form}")
        part = found.groupdict().get
        year = int(part("year") or f"20{part('short_year')}")
        name = part("month_name")
        month = next(n for n, each in enumerate(_MONTHS, 1) if each[:3] == name[:3].lower()) if name else 0
        hour = int(part("hour") or 0)
        if part("hour_of_12"):
            of_12 = int(part("hour_of_12") or 0)
            if not 1 <= of_12 <= 12:
                raise ValueError(f"{value!r} does not have the format {self.form}")
            hour = of_12 % 12 + (12 if str(part("half")).lower() == "pm" else 0)
        micros = int((part("fraction") or "0")[:6].ljust(6, "0"))
        time = datetime(
            year, month or int(part("month") or 0), int(part("day") or 0), hour, int(part("minute") or 0),
            int(part("second") or 0), micros,
        )  # fmt: skip
        if self.kind == "date":
            return time.date()
        offset = part("offset")
        zone = _fixed_zone(offset) if offset else self.zone or UTC
        try:
            return time.replace(tzinfo=zone).astimezone(UTC)
        except OverflowError as error:
            raise ValueError(f"{value!r} is not in the years 1 to 9999") from error

    def _usual(self, values: list[Any]) -> pa.Array | None:
        """The parts as texts of ISO 8601, which Arrow reads exactly and refuses for days that do not exist."""
        texts = _texts(values)
        found = pc.extract_regex(texts, self._re2)
        if found.null_count > texts.null_count:
            return None
        part = {name: found.field(name) for name in self._parts}
        hour, minute, second = (_padded(part.get(name)) for name in ("hour", "minute", "second"))
        if "hour_of_12" in part:
            clock = _joined(_padded(part["hour_of_12"]), pc.utf8_lower(part["half"]))
            hour = _TWO_DIGITS.take(pc.index_in(clock, value_set=_CLOCK_12))
        if "month_name" in part:
            names = pa.array([name[:3] for name in _MONTHS])
            short = pc.utf8_lower(pc.utf8_slice_codeunits(part["month_name"], 0, 3))
            month = _TWO_DIGITS.take(pc.add(pc.index_in(short, value_set=names), 1))
        else:
            month = _padded(part["month"])
        year = part["year"] if "year" in part else _joined("20", part["short_year"])
        iso = _joined(year, "-", month, "-", _padded(part["day"]), "T", hour, ":", minute, ":", second)
        if "fraction" in part:
            iso = _joined(iso, ".", pc.utf8_slice_codeunits(part["fraction"], 0, 6))
        if "offset" in part:
            iso = _joined(iso, part["offset"])
        iso = pc.if_else(pc.is_valid(texts), iso, None)
        if iso.null_count > texts.null_count:
            return None
        if "offset" in part:
            return iso.cast(_UTC_TIMES)
        times = iso.cast(pa.timestamp("us"))
        if self.kind == "timestamp":
            return _as_utc(times, self.zone)
        return _dates(times) if _in_range(times) else None


@lru_cache(maxsize=256)
def time_format(kind: str, form: str | None = None, zone: str | None = None) -> TimeFormat:
    """The format of a column of type `kind`, date or timestamp. Raises ValueError that says what is wrong with it.

    >>> time_format("timestamp", "dd-MMM-yy HH:mm", "America/Sao_Paulo").read("23-Nov-26 10:30")
    datetime.datetime(2026, 11, 23, 13, 30, tzinfo=datetime.timezone.utc)

    form   iso, a key of EPOCHS or a pattern; None: iso
    zone   the time zone of times without an offset; None: UTC
    """
    form = form or ISO
    found = None if zone is None else time_zone(zone)
    if zone is not None and kind == "date" and form not in EPOCHS:
        raise ValueError("timezone: a date without a time is in no time zone; leave it out")
    if form in EPOCHS:
        return _Epoch(kind, form, found)
    if form == ISO:
        return _IsoTimes(kind, form, found) if kind == "timestamp" else _Pattern(kind, "yyyy-MM-dd", None)
    return _Pattern(kind, form, found)


@lru_cache(maxsize=256)
def time_zone(name: str) -> ZoneInfo:
    """A time zone by its name in the IANA database. Raises ValueError that suggests the nearest name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        near = difflib.get_close_matches(name, available_timezones(), 1)
        raise ValueError(
            f"timezone: no time zone is named {name!r}; {f'did you mean {near[0]}? ' if near else ''}"
            "allowed: names of the IANA database, such as America/Sao_Paulo or UTC"
        ) from error


def _regular_expression(form: str) -> tuple[str, list[str]]:
    """The regular expression of a pattern, and the names of its groups. Raises ValueError for an unusable pattern."""
    text, parts, at, before = "", list[str](), 0, ""
    while at < len(form):
        token = _TOKEN.match(form, at)
        if token is None:
            raise ValueError(f"format {form!r}: a quote is not closed")
        at = token.end()
        letters = token[0]
        if token[2] is None:
            literal = token[0] if token[1] is None else token[1].replace("''", "'") or "'"
            text, before = text + re.escape(literal), literal[-1:]
            continue
        name, regex = _ELEMENTS.get(letters, ("", ""))
        if letters.strip("S") == "" and len(letters) <= 9:
            name, regex = "fraction", f"[0-9]{{1,{len(letters)}}}"
        if not name:
            hint = f"did you mean {letters.swapcase()}? " if letters.swapcase() in _ELEMENTS else ""
            raise ValueError(f"format {form!r}: unknown letters {letters!r}; {hint}known: {_KNOWN}")
        if before in _OPEN and "[0-9]" in regex and name != "offset":
            raise ValueError(f"format {form!r}: where {before!r} ends is unclear; write it with two letters")
        before = "S" if name == "fraction" else letters if letters in _OPEN else ""
        parts.append(name)
        text += f"(?P<{name}>{regex})"
    _check_parts(form, parts)
    return text, parts


def _check_parts(form: str, parts: list[str]) -> None:
    kinds = [{"short_year": "year", "month_name": "month", "hour_of_12": "hour"}.get(part, part) for part in parts]
    for one in kinds:
        if kinds.count(one) > 1:
            raise ValueError(f"format {form!r}: the {one} occurs twice")
    for one in ("year", "month", "day"):
        if one not in kinds:
            raise ValueError(
                f"format {form!r}: has no {one}; allowed: {ISO}, {', '.join(EPOCHS)}, or a pattern such as M/d/yyyy "
                "or dd-MMM-yy HH:mm"
            )
    if ("half" in parts) != ("hour_of_12" in parts):
        raise ValueError(f"format {form!r}: hours of 12 (h) and a belong together; hours of 24 are H")
    for needed, one in (("hour", "minute"), ("minute", "second"), ("second", "fraction"), ("hour", "offset")):
        if one in kinds and needed not in kinds:
            raise ValueError(f"format {form!r}: has a {one} and no {needed}")


def local_time(time: datetime, zone: ZoneInfo | None) -> datetime:
    """A time with an offset, in the zone; None: UTC. Raises ValueError if its year is not 1 to 9999 there."""
    try:
        return time.astimezone(zone or UTC)
    except OverflowError as error:
        raise ValueError(f"{time} is not in the years 1 to 9999 in {zone}") from error


def to_local(times: pa.Array, zone: ZoneInfo | None) -> pa.Array | None:
    """Times in UTC as the zone's clocks show them, without a zone. None if a value has to be read by itself."""
    naive = times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).cast(pa.timestamp("us"))
    return naive if zone is None else _shifted(naive, _offset_of_utc, zone, 1)


def _as_utc(local: pa.Array, zone: ZoneInfo | None) -> pa.Array | None:
    shifted = local if zone is None else _shifted(local, _offset_of_local, zone, -1)
    return None if shifted is None else shifted.cast(pa.int64()).cast(_UTC_TIMES)


def _shifted(
    times: pa.Array, offset: Callable[[ZoneInfo, int], int | None], zone: ZoneInfo, sign: int
) -> pa.Array | None:
    """The times moved by the zone's offset. It is computed once for each hour; None if it changes within an hour."""
    if not _in_range(times):
        return None
    micros = times.cast(pa.int64())
    hours = pc.floor_temporal(times, unit="hour").cast(pa.int64()).dictionary_encode()
    offsets = [offset(zone, hour) for hour in hours.dictionary.to_pylist()]
    if None in offsets:
        return None
    return pc.add(micros, pa.array([sign * (each or 0) for each in offsets], pa.int64()).take(hours.indices)).cast(
        times.type
    )


@lru_cache(maxsize=4096)
def _offset_of_local(zone: ZoneInfo, hour: int) -> int | None:
    return _constant(hour, lambda time: time.replace(tzinfo=zone))


@lru_cache(maxsize=4096)
def _offset_of_utc(zone: ZoneInfo, hour: int) -> int | None:
    return _constant(hour, lambda time: time.replace(tzinfo=UTC).astimezone(zone))


def _constant(hour: int, zoned: Callable[[datetime], datetime]) -> int | None:
    """The offset in microseconds during the hour that starts at `hour`; None if it changes in it."""
    try:
        found = {
            zoned(_EPOCH + timedelta(microseconds=at)).utcoffset() or timedelta() for at in (hour, hour + _HOUR - 1)
        }
    except OverflowError:
        return None
    return found.pop() // timedelta(microseconds=1) if len(found) == 1 else None


def _fixed_zone(offset: str) -> timezone:
    if offset == "Z":
        return UTC
    digits = offset[1:].replace(":", "").ljust(4, "0")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-ahead if offset[0] == "-" else ahead)


def _in_range(times: pa.Array) -> bool:
    found = pc.min_max(times.cast(pa.int64())).as_py()
    return found["min"] is None or (found["min"] >= _FIRST and found["max"] <= _LAST)


def _dates(times: pa.Array) -> pa.Array:
    return times.cast(pa.date32(), safe=False)


def _texts(values: list[Any]) -> pa.Array:
    texts = pa.array(values, pa.string())
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _all_match(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py())


def _padded(texts: pa.Array | None) -> Any:
    return "00" if texts is None else pc.utf8_lpad(texts, width=2, padding="0")


def _joined(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
