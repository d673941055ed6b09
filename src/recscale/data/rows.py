"""Columns of text to interactions, and the reasons why the other rows are none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from recscale.data import parse, times
from recscale.data.parse import EXTRA, Block
from recscale.data.tables import CHOICE
from recscale.data.times import LATEST, MICROSECONDS, OUR_DAYS

Entry = Mapping[str, Any]

COLUMNS = {
    "user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64, "domain": pl.String,
}  # fmt: skip
BLANKS = (" ", "\t")
SOME = 50  # values of a column that a message may show
EXAMPLES = 1000  # rejected rows of a chunk that are shown
REJECTED = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}
NOT_OF_OUR_DAYS = "timestamp_outside_1990_to_tomorrow"


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file: interactions, and what is none.

    `rejected` counts by reason, `examples` are the first of them (REJECTED); `blank` lines hold nothing
    and count nowhere else; `not_chosen` counts rows by the column that left them out.
    """

    frame: pl.DataFrame
    rejected: Mapping[str, int]
    examples: pl.DataFrame
    blank: int
    not_chosen: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, set[str]] = field(default_factory=dict)  # of the columns that choose rows

    @property
    def rows(self) -> int:
        """All but the blank ones."""
        return len(self.frame) + sum(self.rejected.values()) + sum(self.not_chosen.values())


@dataclass(frozen=True)
class Choice:
    """Which rows are wanted: by column, the values to keep and those to drop."""

    keep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    drop: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """All columns that are looked at."""
        return list(dict.fromkeys([*self.keep, *self.drop]))

    def apply(self, table: Block) -> tuple[Block, dict[str, int], dict[str, set[str]]]:
        """The rows wanted, how many each column left out, and the values that each has, as `spelled`."""
        frame, line = table.frame, np.asarray(table.line)
        counts: dict[str, int] = {}
        values: dict[str, set[str]] = {}
        for column in self.columns:
            there = frame[CHOICE + column].unique().to_list()
            spelled_ = {value: spelled(value) for value in there}
            asked = [*self.keep.get(column, ()), *self.drop.get(column, ())]
            met = {one for one in spelled_.values() if self._is(one, asked)}
            values[column] = met | set(islice(spelled_.values(), SOME))
            wanted = there
            if column in self.keep:
                wanted = [one for one in wanted if self._is(spelled_[one], self.keep[column])]
            if column in self.drop:
                wanted = [one for one in wanted if not self._is(spelled_[one], self.drop[column])]
            good = frame[CHOICE + column].is_in([one for one in wanted if one is not None])
            good = good.fill_null(None in wanted)
            counts[f"not_chosen_by_{column}"] = len(frame) - int(good.sum())
            frame, line = frame.filter(good), line[good.to_numpy()]
        counts = {name: n for name, n in counts.items() if n}
        left = frame.drop(CHOICE + one for one in self.columns)
        return replace(table, frame=left, line=line), counts, values

    @staticmethod
    def _is(value: str, asked: Sequence[Any]) -> bool:
        """Whether a value is one of those asked for; true and false may be written as 1 and 0."""
        return any(
            value == spelled(one) or (isinstance(one, bool) and value == str(int(one))) for one in asked
        )

    def unmet(self, values: Mapping[str, set[str]]) -> Iterator[str]:
        """What is asked for and no row has, a line each. `values`: those of all rows, as `spelled`."""
        for key, part in (("keep", self.keep), ("drop", self.drop)):
            for column, asked in part.items():
                for one in asked:
                    if not any(self._is(value, [one]) for value in values.get(column, ())):
                        known = ", ".join(sorted(values.get(column, ()))[:20])
                        yield f"{key}.{column}: no row has {one!r}; its values: {known}"


def spelled(value: Any) -> str:
    """A value by one spelling, whether of a file or of YAML: 5 for 5.00, true for TRUE, nothing for NULL."""
    text = str(value).strip() if value is not None else ""
    if text in times.MISSING:
        return ""
    if text.lower() in ("true", "false"):
        return text.lower()
    return f"{float(text):.15g}" if re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]+)?", text) else text


def checked(table: Block, form: Entry, name: str, domain: str | None, judged: bool) -> Chunk:
    """The rows that are interactions, and the reasons why the others are none.

    judged: the unit of time was guessed, so a time that is none of our days is another unit's.
    """
    frame = _keys(table.frame)
    if not table.bad and _clean(frame, form, judged):
        return Chunk(_interactions(frame, form, domain), {}, pl.DataFrame(schema=REJECTED), table.blank)
    reasoned = frame.with_columns(_reason(frame, form, judged).alias("reason"))
    good = reasoned.filter(pl.col("reason").is_null())
    counts: Counter[str] = Counter(reason for _, reason, _ in table.bad)
    examples = [(name, *bad) for bad in table.bad[:EXAMPLES]]
    if len(good) < len(frame):
        line = pl.Series("line", np.asarray(table.line))
        others = reasoned.with_columns(line).filter(pl.col("reason").is_not_null())
        counts.update(dict(others["reason"].value_counts().iter_rows()))
        fields = [pl.format(f"{f} {{}}", _shown(frame, f).fill_null("-")) for f in _fields(frame)]
        text = pl.concat_str(fields, separator=", ").str.slice(0, parse.SHOWN)
        examples += others.head(EXAMPLES).select(pl.lit(name), "line", "reason", text).rows()
    shown = pl.DataFrame(examples, schema=REJECTED, orient="row").sort("line", maintain_order=True)
    return Chunk(_interactions(good, form, domain), counts, shown.head(EXAMPLES), table.blank)


def _keys(frame: pl.DataFrame) -> pl.DataFrame:
    """Users, items and domains by one spelling each: no blanks around, 136 for 136.0, null for NULL.

    Most blocks have nothing to mend, and that is seen without copying them. What is looked for is exactly
    what would be mended: else the size of the blocks would decide.
    """
    keys = [key for key in ("user", "item", "domain") if key in frame.columns]
    odd = frame.select(
        (
            pl.col(key).is_in(times.MISSING)
            | pl.any_horizontal(pl.col(key).str.starts_with(start) for start in BLANKS)
            | pl.any_horizontal(pl.col(key).str.ends_with(end) for end in (*BLANKS, ".0"))
        ).any()
        for key in keys
    )
    mended = []
    for key in keys:
        if odd[key].any():
            text = pl.col(key).str.strip_chars("".join(BLANKS)).str.replace(r"^(-?[0-9]+)\.0$", "$1")
            mended.append(pl.when(~times.missing(text)).then(text).alias(key))
    return frame.with_columns(mended) if mended else frame


def _shown(frame: pl.DataFrame, column: str) -> pl.Expr:
    """A value for a person; of times their number, which may be no time at all."""
    value = pl.col(column)
    return (value.to_physical() if frame.schema[column].is_temporal() else value).cast(pl.String)


def _fields(frame: pl.DataFrame) -> list[str]:
    return [column for column in frame.columns if column != EXTRA]


def _interactions(frame: pl.DataFrame, form: Entry, domain: str | None) -> pl.DataFrame:
    """COLUMNS of rows that all are interactions."""
    own = pl.col("domain") if "domain" in frame.columns else pl.lit(domain, pl.String)
    rating, time = _rating(frame), _time(frame, form)
    return frame.select("user", "item", rating.alias("rating"), time.alias("timestamp"), own.alias("domain"))


def _reason(frame: pl.DataFrame, form: Entry, judged: bool) -> pl.Expr:
    """Why each row is no interaction; null where it is one."""
    extra = pl.col(EXTRA).str.strip_chars().fill_null("") != "" if EXTRA in frame.columns else pl.lit(False)
    time, rating = _time(frame, form), _rating(frame)
    untimed = time.is_null() & pl.lit(has_times(form))
    ours = time.fill_null(OUR_DAYS).is_between(OUR_DAYS, times.tomorrow()) | pl.lit(not judged)
    return (
        pl.when(extra).then(pl.lit("too_many_fields"))
        .when(pl.col("user").fill_null("") == "").then(pl.lit("missing_user"))
        .when(pl.col("item").fill_null("") == "").then(pl.lit("missing_item"))
        .when(untimed & ~_written(frame, "timestamp")).then(pl.lit("missing_timestamp"))
        .when(untimed).then(pl.lit("timestamp_is_none"))
        .when(time.fill_null(0).is_between(0, LATEST, closed="left").not_())
        .then(pl.lit("timestamp_before_1970_or_after_2199"))
        .when(~ours).then(pl.lit(NOT_OF_OUR_DAYS))
        .when(rating.is_null() & _written(frame, "rating")).then(pl.lit("rating_is_not_a_number"))
    )  # fmt: skip


def has_times(form: Entry) -> bool:
    """Whether the log has times; else the order of its rows is all there is."""
    if form.get("kind") == "sequences":
        return "time_separator" in form
    return form.get("time_unit") != "none"


def _clean(frame: pl.DataFrame, form: Entry, judged: bool) -> bool:
    """Whether every row is an interaction, as can be seen at once: most blocks of a large log are such."""
    if EXTRA not in frame.columns or frame.schema.get("timestamp") != pl.Float64 or not has_times(form):
        return False
    given = ["user", "item", "timestamp"] + [c for c in ("rating",) if c in frame.columns]
    if any(frame[c].null_count() for c in given) or frame[EXTRA].null_count() < len(frame):
        return False
    if "rating" in given and not (frame.schema["rating"] == pl.Float64 and frame["rating"].is_finite().all()):
        return False
    least, most = frame.select(least=pl.col("timestamp").min(), most=pl.col("timestamp").max()).row(0)
    finite = bool(frame["timestamp"].is_finite().all())
    scale = MICROSECONDS[form.get("time_unit", "s")]
    first, last = (OUR_DAYS, times.tomorrow()) if judged else (0, LATEST)
    return finite and len(frame) > 0 and least * scale >= first and most * scale < last


def _written(frame: pl.DataFrame, column: str) -> pl.Expr:
    """Whether a field has anything in it."""
    if column not in frame.columns:
        return pl.lit(False)
    kind = frame.schema[column]
    if kind == pl.String:
        return ~times.missing(pl.col(column).str.strip_chars())
    value = pl.col(column)
    return (value.is_not_null() & ~value.is_nan()) if kind.is_float() else value.is_not_null()


def _rating(frame: pl.DataFrame) -> pl.Expr:
    """Finite numbers as Float64, null for all else."""
    if "rating" not in frame.columns:
        return pl.lit(None, pl.Float64)
    value = pl.col("rating")
    if frame.schema["rating"] == pl.String:
        # One or two digits behind a comma are decimals; three may be thousands.
        value = value.str.strip_chars().str.replace("^([+-]?[0-9]+),([0-9]{1,2})$", "$1.$2")
    value = value.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def _time(frame: pl.DataFrame, form: Entry) -> pl.Expr:
    if "timestamp" not in frame.columns or not has_times(form):
        return pl.lit(None, pl.Int64)
    return times.microseconds(pl.col("timestamp"), frame.schema["timestamp"], form)
