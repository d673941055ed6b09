"""When: numbers and texts to microseconds since 1970, and the unit or format that a sample of them is in."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recscale.errors import InputError

MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # in one of each
LATEST = 7_258_118_400 * 1_000_000  # the year 2200: what is later is in another unit, or no time
OUR_DAYS = 631_152_000 * 1_000_000  # 1990: no log of clicks, orders or ratings is older
MISSING = (
    "", "NULL", "Null", "null", "\\N", "NaN", "NAN", "nan", "None", "NA", "N/A", "<NA>", "NaT", "undefined",
)  # fmt: skip
ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
# Digits that are a date, by how many there are.
CALENDARS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y",
    "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y",
    "%m %d, %Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
CLOCKS = (
    "", ", %H:%M:%S", ", %I:%M:%S %p",
    " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %H:%M:%S,%f", " %I:%M:%S %p", " %I:%M %p", " %I:%M:%S%p",
    " %I:%M%p", " %H:%M:%S %z", " %H",
)  # fmt: skip
TEXTS = (
    *(date + clock for date in DATES for clock in CLOCKS),
    "%Y-%m-%dT%H:%M:%S,%f", "%Y-%m-%dT%H:%M:%S,%f%z", "%Y-%m-%dT%H", "%Y%m%dT%H%M%S%z", "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%M", "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%Y%m%d %H%M%S", "%Y%m%d %H%M", "%Y%m%d %H",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip


def tomorrow() -> int:
    """Microseconds since 1970 of a day from now: no log is later."""
    return int((time.time() + 86_400) * 1e6)


def numeric(form: Mapping[str, Any]) -> bool:
    """Whether the times of a format are numbers since 1970."""
    return "time_format" not in form and form.get("time_unit", "s") in MICROSECONDS


def missing(text: pl.Expr) -> pl.Expr:
    """Whether a text, stripped, stands for no value."""
    return text.fill_null("").is_in(MISSING)


def microseconds(value: pl.Expr, kind: pl.DataType, form: Mapping[str, Any]) -> pl.Expr:
    """Microseconds since 1970 of times of type `kind`, null for what is no time.

    Typed times (Parquet) know their own unit.
    """
    if isinstance(kind, pl.Date | pl.Datetime):
        scale = MICROSECONDS[kind.time_unit] if isinstance(kind, pl.Datetime) else 86_400e6
        return _whole(value.to_physical().cast(pl.Float64), scale)
    if not numeric(form):
        text = value.cast(pl.String).str.strip_chars()
        return _formatted(text, form["time_format"]) if "time_format" in form else _iso(text)
    if kind == pl.String:
        value = value.str.strip_chars()
    elif kind.is_temporal():  # a time of day, or a duration: no moment
        value = pl.lit(None, pl.Float64)
    number = value.cast(pl.Float64, strict=False)
    return _whole(pl.when(number.is_finite()).then(number), MICROSECONDS[form.get("time_unit", "s")])


def _whole(number: pl.Expr, scale: float) -> pl.Expr:
    number = (number * scale).floor()
    far = pl.when(number.is_not_null()).then(-1.0)  # too large for a whole number, and for a time
    return pl.when(number.abs() < 2.0**62).then(number).otherwise(far).cast(pl.Int64)


def _iso(text: pl.Expr) -> pl.Expr:
    """ISO 8601 with dashes and colons, T or a blank between day and time; UTC where it names no zone."""
    text = text.str.replace("^(.{10}) ", "${1}T").str.replace(" ?(Z|UTC)$", "+00:00")
    text = text.str.replace(r"(:[0-9]{2}(?:\.[0-9]+)?)([+-][0-9]{2})$", "${1}${2}:00")  # as Postgres has it
    text = text.str.replace("([+-][0-9]{2}):?([0-9]{2})$", "${1}:${2}")
    zoned = [text.str.to_datetime(form + "%:z", strict=False, time_unit="us") for form in ISO]
    parsed = [text.str.to_datetime(form, strict=False, time_unit="us") for form in ISO]
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return pl.coalesce(*parsed, *(one.dt.replace_time_zone(None) for one in zoned), day).dt.epoch("us")


def _formatted(text: pl.Expr, form: str) -> pl.Expr:
    """Texts in a format of strptime, UTC where it has no zone."""
    text = text.str.replace(r"^([0-9]+)\.0+$", "$1")  # digits that went through a column of numbers
    if ",%f" in form:  # polars knows fractions behind a point alone
        form, text = form.replace(",%f", ".%f"), text.str.replace(r",([0-9])", ".$1")
    form = form.replace(".%f", "%.f").replace("%f", "%6f")
    if "%z" in form or "%Z" in form:
        form = form.replace("%Z", "%z")
        text = text.str.replace(r"\b(UTC|GMT)\b|Z$", "+0000")
        text = text.str.replace(r"(:[0-9]{2}(?:\.[0-9]+)?)([+-][0-9]{2})$", "${1}${2}00")
    if ("%H" in form or "%I" in form) and "%M" not in form:  # polars wants minutes
        form, text = form + " %M", pl.concat_str(text, pl.lit(" 00"))
    if any(part in form for part in ("%H", "%I", "%T")):
        parsed = text.str.to_datetime(form, strict=False, time_unit="us")
        parsed = parsed.dt.replace_time_zone(None) if "%z" in form else parsed
    else:
        parsed = text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    return parsed.dt.epoch("us")


def check_format(form: str, where: str) -> None:
    """Raise InputError for a time_format that gives no day: unknown, or without year, month or day."""
    day = any(all(part in form for part in parts) for parts in (("%d", "%m"), ("%d", "%b"), ("%d", "%B")))
    if not (day or "%j" in form or "%D" in form or "%F" in form) or not any(
        year in form for year in ("%Y", "%y", "%D", "%F")
    ):
        raise InputError(f"{where}: {form}: has no year, month and day; legal is a format of strptime")
    try:
        pl.select(_formatted(pl.lit("2021"), form))
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{where}: {form}: is no format of strptime: {reason}") from error


def guess(values: Sequence[Any], where: str) -> dict[str, str]:
    """The time_unit or time_format of a sample; {} for seconds since 1970.

    Raises InputError, with the keys to write, where the sample fits none, or two.
    """
    texts = [str(value).strip() for value in values if value is not None]
    texts = [text for text in texts if text not in MISSING]
    if not texts:
        return {}
    numbers = [text for text in texts if is_number(text)]
    rounded = [text for text in numbers if re.fullmatch(r"-?[0-9](\.[0-9]{1,6})?[eE]\+?[0-9]+", text)]
    if 2 * len(rounded) > len(texts):
        raise InputError(
            f"{where}: times such as {rounded[0]} have lost their digits, as a spreadsheet shows numbers: "
            "write them whole"
        )
    if 2 * len(numbers) < len(texts):
        return _guess_text(texts, where)
    days = {
        unit: sum(_is_ours(float(one) * scale) for one in numbers) for unit, scale in MICROSECONDS.items()
    }
    frame = pl.DataFrame({"t": numbers})
    for form in CALENDARS.values():
        days[form] = _parse(frame, {"time_format": form}, ours=True).count()
    best = max(days, key=lambda unit: days[unit])
    if 2 * days[best] <= len(numbers):
        raise InputError(
            f"{where}: times such as {numbers[0]} are no day from 1990 to tomorrow, whatever their unit; say "
            "time_unit: s (taken as they stand), time_unit: none (the rows of a user are in order of time) "
            "or time_format (strptime, as %Y%m%d)"
        )
    if best == CALENDARS[8]:
        raise InputError(
            f"{where}: times such as {numbers[0]} may be days: say time_format: {best!r}, and "
            "drop_duplicates: false where equal rows of a day are several interactions"
        )
    return {} if best == "s" else {"time_unit" if best in MICROSECONDS else "time_format": best}


def are_times(texts: Sequence[str]) -> bool:
    """Whether a column can be nothing but times: numbers of our days in one unit, or days in one format."""
    texts = [text.strip() for text in texts if text.strip() not in MISSING]
    if not texts:
        return False
    if all(map(is_number, texts)):
        numbers = list(map(float, texts))
        return any(all(_is_ours(one * scale) for one in numbers) for scale in MICROSECONDS.values())
    if not all(any(c.isdigit() for c in text) and any(c in text for c in "-/.: ") for text in texts):
        return False
    frame = pl.DataFrame({"t": texts})
    forms = [{"time_unit": "iso"}, *({"time_format": form} for form in TEXTS)]
    return any(_parse(frame, form, ours=True).count() == len(texts) for form in forms)


def fits(values: Sequence[Any], form: Mapping[str, str]) -> bool:
    """Whether all of a sample are times in this format."""
    texts = [str(value).strip() for value in values if value is not None]
    texts = [text for text in texts if text not in MISSING]
    return _parse(pl.DataFrame({"t": texts}, schema={"t": pl.String}), form, ours=True).count() == len(texts)


def _guess_text(texts: list[str], where: str) -> dict[str, str]:
    frame = pl.DataFrame({"t": texts})
    iso = _parse(frame, {"time_unit": "iso"}, ours=False).count()
    found = {form: _parse(frame, {"time_format": form}, ours=True) for form in TEXTS}
    most = max(part.count() for part in found.values())
    if iso and iso >= most:
        return {"time_unit": "iso"}
    best = {form: part for form, part in found.items() if part.count() == most}
    if 2 * most <= len(texts):
        raise InputError(
            f"{where}: times such as {texts[0]!r} are in no format that is known; say time_format (strptime, "
            "as %d.%m.%Y %H:%M)"
        )
    first, *others = best
    unlike = [form for form in others if _day_first(form) != _day_first(first)]
    if unlike:
        raise InputError(
            f"{where}: times such as {texts[0]!r} may be {first} or {unlike[0]}; say which (time_format)"
        )
    return {"time_format": first}


def _day_first(form: str) -> bool:
    return -1 < form.find("%d") < form.find("%m")


def _parse(frame: pl.DataFrame, form: Mapping[str, str], ours: bool) -> pl.Series:
    """Microseconds of the column t, null for what is no time; `ours`: nor one of our days."""
    found = frame.select(microseconds(pl.col("t"), pl.String(), form)).to_series()
    if not ours:
        return found
    return found.set(~found.is_between(OUR_DAYS, tomorrow()).fill_null(False), None)


def _is_ours(moment: float) -> bool:
    return OUR_DAYS <= moment < tomorrow()


def is_number(text: str) -> bool:
    """Whether a text is a finite number; 1_000 is none, though Python reads it."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False
