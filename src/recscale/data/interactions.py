"""Raw interaction logs: files and archive members in, checked interactions out, a chunk at a time.

An interaction: user and item (text), rating (null where there is none), timestamp (microseconds since
1970; null where the log has an order only), domain (text, or null). A row that is none is counted by
reason, never dropped silently.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet

from recscale.data import formats, parse, raw, side_tables
from recscale.data.parse import EXTRA, Block
from recscale.errors import InputError

Entry = Mapping[str, Any]

COLUMNS = {
    "user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64, "domain": pl.String,
}  # fmt: skip
MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # in one of each
LATEST = 7_258_118_400 * 1_000_000  # the year 2200: what is later is in another unit, or no time
BLOCK = 2**25  # bytes of text parsed at a time
EXAMPLES = 1000  # rejected rows of a chunk that are shown
REJECTED = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}
ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file: interactions, and what is none.

    `rejected` counts by reason, `examples` are the first of them (REJECTED); `blank` lines hold nothing
    and count nowhere else.
    """

    frame: pl.DataFrame
    rejected: Mapping[str, int]
    examples: pl.DataFrame
    blank: int

    @property
    def rows(self) -> int:
        """All but the blank ones."""
        return len(self.frame) + sum(self.rejected.values())


@dataclass(frozen=True)
class Log:
    """The raw log of a dataset: a source of config/datasets.yaml with its `format`, where its files lie.

    `paths` are those of side_tables.parts: the logs, then the tables beside them.
    """

    name: str
    paths: Sequence[Path]
    source: Entry

    def members(self) -> Iterator[tuple[Path, str | None, Entry]]:
        """Path, archive member or None, and entry of every file, in order."""
        for path, file in zip(self.paths, self.source["files"], strict=False):
            for member in file.get("members") or [None]:
                yield path, member, file

    def bytes(self) -> int:
        """About how many bytes of text it has; what is compressed is taken to be a tenth of it."""
        found = 0
        for path, member, _ in self.members():
            plain = None if self.source["format"].get("kind") == "parquet" else raw.size(path, member)
            found += 10 * path.stat().st_size if plain is None else plain
        return found

    @property
    def short(self) -> bool:
        """Whether a row is but an item, not a line."""
        return bool(self.source["format"].get("kind") == "sequences")

    def chunks(self, block: int = BLOCK) -> Iterator[Chunk]:
        """Interactions of all files, one after the other, in row order, about `block` bytes at a time.

        How large the chunks are changes nothing else. Raises InputError naming file and member for what is
        no such log and for a file with another number of `rows`.
        """
        tables = dict(zip((part["file"] for part in side_tables.parts(self.source)), self.paths, strict=True))
        prefix = pl.col("user").str.strip_prefix(self.source.get("strip_user_prefix", ""))
        for path, member, file in self.members():
            name = f"{path}: {member}" if member else str(path)
            rows = 0
            beside = {
                column: side_tables.read(tables[file[kind]["file"]], file[kind], column)
                for kind, column in (("items", "item"), ("users", "user"))
                if kind in file
            }
            try:
                for table in _tables(path, member, name, self.source["format"], block):
                    chunk = _checked(table, self.source["format"], name, file.get("domain"))
                    rows += chunk.rows
                    if "strip_user_prefix" in self.source:
                        chunk = replace(chunk, frame=chunk.frame.with_columns(prefix))
                    for column, table_of in beside.items():
                        chunk = replace(chunk, frame=side_tables.apply(chunk.frame, table_of, column, name))
                    yield chunk
            except pl.exceptions.PolarsError as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{name}: is not a readable interaction log: {reason}") from error
            if "rows" in file and rows != file["rows"]:
                raise InputError(f"{name}: has {rows} rows, the file has {file['rows']}")
            if not rows:
                raise InputError(f"{name}: is not a readable interaction log: it has no interactions")


def log(name: str, paths: Sequence[Path], source: Entry, say: Callable[[str], None]) -> Log:
    """The log of a source; where it names no `format`, that of its first file is guessed, and said."""
    if "format" not in source:
        form = formats.guess(paths[0], (source["files"][0].get("members") or [None])[0])
        say(f"{name}: format guessed from {paths[0]}: {formats.text(form)}")
        source = {**source, "format": form}
    _check_format(source["format"], f"{name}: {source.get('name', paths[0])}: format")
    return Log(name, paths, source)


def _check_format(form: Entry, where: str) -> None:
    """Raise InputError for a format whose keys do not go together."""
    kind, columns = form.get("kind", "text"), form.get("columns")
    if kind == "sequences":
        if columns is not None:
            raise InputError(f"{where}: columns: sequences have none")
        return
    needed = ["user", "item"] + (["timestamp"] if form.get("time_unit") != "none" else [])
    missing = [key for key in needed if key not in (columns or ())]
    if missing:
        rest = "; time_unit: none if the rows of a user are in order" if missing == ["timestamp"] else ""
        raise InputError(f"{where}: columns: {', '.join(missing)} is missing{rest}")
    if isinstance(columns, Mapping):
        if kind == "text" and (not form.get("header", False) or form.get("separator") == "::"):
            raise InputError(f"{where}: columns by name need a header and a separator of one character")
    elif kind != "text":
        raise InputError(f"{where}: columns: {kind} needs a mapping of user, item, ... to its names")
    for key in COLUMNS:
        if isinstance(columns, list) and columns.count(key) > 1:
            raise InputError(f"{where}: columns: {key} is there more than once")


# --- files to columns of text -------------------------------------------------------------------


def _tables(path: Path, member: str | None, name: str, form: Entry, block: int) -> Iterator[Block]:
    kind = form.get("kind", "text")
    if kind == "parquet":
        yield from _parquet(path, member, name, form["columns"], block)
        return
    with raw.opened(path, member) as stream:
        if kind == "text":
            yield from _text(stream, form, block)
        elif kind == "jsonl":
            line = 1
            for part in raw.blocks(stream, block):
                table = parse.objects(part, line, form["columns"])
                line += table.lines
                yield table
        else:
            yield from _sequences(stream, form, block)


def _text(stream: raw.Stream, form: Entry, block: int) -> Iterator[Block]:
    separator, columns = form.get("separator", ","), form["columns"]
    quotes = separator in (",", ";")
    names = None if isinstance(columns, Mapping) else list(columns)
    wanted = [key for key in COLUMNS if key in columns]
    numbers = [key for key in ("rating", "timestamp") if key in wanted]
    if form.get("time_unit") in ("iso", "none"):
        numbers = [key for key in numbers if key != "timestamp"]
    line, rest, waiting = 1, b"", form.get("header", False)
    for part in raw.blocks(stream, block):
        if waiting:
            head, _, part = part.partition(b"\n")
            waiting, line = False, 2
            if names is None:
                names = _renamed(parse.header(head, separator, quotes, stream.name), columns, stream.name)
            elif _is_row(head, separator, names):
                raise InputError(f"{stream.name}: line 1 is no header: {parse.shown(head)!r} (header: false)")
            if not part:
                continue
        assert names is not None  # the schema asks for a header where columns go by name
        table = parse.delimited(rest + part, line, separator, names, wanted, numbers, quotes, last=False)
        line, rest = line + table.lines, table.rest
        yield table
    if rest and names is not None:
        yield parse.delimited(rest, line, separator, names, wanted, numbers, quotes, last=True)


def _is_row(head: bytes, separator: str, names: list[str]) -> bool:
    """Whether what should be a header has a number where the times are."""
    fields = head.decode("utf-8", "replace").strip().split(separator)
    at = names.index("timestamp") if "timestamp" in names else len(fields)
    return at < len(fields) and re.fullmatch(r"[0-9.]+", fields[at].strip()) is not None


def _renamed(found: list[str], columns: Mapping[str, str], name: str) -> list[str]:
    """The header with our names for the columns asked for. Raises InputError where one is not there."""
    for ours, theirs in columns.items():
        if found.count(theirs) != 1:
            has = "no" if theirs not in found else "more than one"
            listed = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
            raise InputError(f"{name}: has {has} column {theirs} ({ours}); its columns: {listed}")
    renamed = {theirs: ours for ours, theirs in columns.items()}
    return [renamed.get(theirs, f"_{k}") for k, theirs in enumerate(found)]


def _parquet(path: Path, member: str | None, name: str, columns: Entry, block: int) -> Iterator[Block]:
    """Columns as they are typed there; keys of any type become text."""
    where: Any = path
    if member:
        with raw.opened(path, member) as stream:
            where = io.BytesIO(stream.read())
    row = 1
    with raw.told(name), pyarrow.parquet.ParquetFile(where) as file:
        _renamed(file.schema_arrow.names, columns, name)
        names = list(dict.fromkeys(columns.values()))
        for batch in file.iter_batches(max(1, block // 64), columns=names):
            # Without metadata and looked through: damage there would end the process inside polars.
            sound = pyarrow.RecordBatch.from_arrays(batch.columns, names=names)
            sound.validate(full=True)
            frame = pl.DataFrame(sound)
            frame = frame.select(pl.col(theirs).alias(ours) for ours, theirs in columns.items())
            texts = [pl.col(key).cast(pl.String) for key in ("user", "item", "domain") if key in columns]
            n = len(frame)
            yield Block(frame.with_columns(texts), range(row, row + n), n)
            row += n


def _sequences(stream: raw.Stream, form: Entry, block: int) -> Iterator[Block]:
    separator = form.get("time_separator")
    if stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        yield parse.mapping(stream.read(), separator, stream.name)
        return
    line = 1
    for part in raw.blocks(stream, block):
        table = parse.histories(part, line, separator)
        line += table.lines
        yield table


# --- columns of text to interactions ------------------------------------------------------------


def _checked(table: Block, form: Entry, name: str, domain: str | None) -> Chunk:
    """The rows that are interactions, and the reasons why the others are none."""
    frame = table.frame
    if not table.bad and _clean(frame, form):
        return Chunk(_interactions(frame, form, domain), {}, pl.DataFrame(schema=REJECTED), table.blank)
    reasoned = frame.with_columns(_reason(frame, form).alias("reason"))
    good = reasoned.filter(pl.col("reason").is_null())
    counts: Counter[str] = Counter(reason for _, reason, _ in table.bad)
    examples = [(name, *bad) for bad in table.bad[:EXAMPLES]]
    if len(good) < len(frame):
        line = pl.Series("line", np.asarray(table.line))
        others = reasoned.with_columns(line).filter(pl.col("reason").is_not_null())
        counts.update(dict(others["reason"].value_counts().iter_rows()))
        fields = [pl.format(f"{f} {{}}", _text_of(frame, f).fill_null("-")) for f in _fields(frame)]
        text = pl.concat_str(fields, separator=", ").str.slice(0, parse.SHOWN)
        examples += others.head(EXAMPLES).select(pl.lit(name), "line", "reason", text).rows()
    shown = pl.DataFrame(examples, schema=REJECTED, orient="row").sort("line", maintain_order=True)
    return Chunk(_interactions(good, form, domain), counts, shown.head(EXAMPLES), table.blank)


def _text_of(frame: pl.DataFrame, column: str) -> pl.Expr:
    """A value for a person; of times their number, which may be no time at all."""
    value = pl.col(column)
    return (value.to_physical() if frame.schema[column].is_temporal() else value).cast(pl.String)


def _fields(frame: pl.DataFrame) -> list[str]:
    return [column for column in frame.columns if column != EXTRA]


def _interactions(frame: pl.DataFrame, form: Entry, domain: str | None) -> pl.DataFrame:
    """COLUMNS of rows that all are interactions."""
    own = pl.col("domain") if "domain" in frame.columns else pl.lit(domain, pl.String)
    rating, time = _number(frame, "rating"), _time(frame, form)
    return frame.select("user", "item", rating.alias("rating"), time.alias("timestamp"), own.alias("domain"))


def _reason(frame: pl.DataFrame, form: Entry) -> pl.Expr:
    """Why each row is no interaction; null where it is one."""
    extra = pl.col(EXTRA).is_not_null() if EXTRA in frame.columns else pl.lit(False)
    time, rating = _time(frame, form), _number(frame, "rating")
    untimed = time.is_null() & pl.lit(_has_times(form))
    return (
        pl.when(extra).then(pl.lit("too_many_fields"))
        .when(pl.col("user").fill_null("") == "").then(pl.lit("missing_user"))
        .when(pl.col("item").fill_null("") == "").then(pl.lit("missing_item"))
        .when(untimed & ~_written(frame, "timestamp")).then(pl.lit("missing_timestamp"))
        .when(untimed).then(pl.lit("timestamp_is_none"))
        .when(time.fill_null(0).is_between(0, LATEST, closed="left").not_())
        .then(pl.lit("timestamp_before_1970_or_after_2199"))
        .when(rating.is_null() & _written(frame, "rating")).then(pl.lit("rating_is_not_a_number"))
    )  # fmt: skip


def _has_times(form: Entry) -> bool:
    """Whether the log has times; else the order of its rows is all there is."""
    if form.get("kind") == "sequences":
        return "time_separator" in form
    return form.get("time_unit") != "none"


def _clean(frame: pl.DataFrame, form: Entry) -> bool:
    """Whether every row is an interaction, as can be seen at once: most blocks of a large log are such."""
    if EXTRA not in frame.columns or frame.schema.get("timestamp") != pl.Float64 or not _has_times(form):
        return False
    given = ["user", "item", "timestamp"] + [c for c in ("rating",) if c in frame.columns]
    if any(frame[c].null_count() for c in given) or frame[EXTRA].null_count() < len(frame):
        return False
    if "rating" in given and not (frame.schema["rating"] == pl.Float64 and frame["rating"].is_finite().all()):
        return False
    least, most = frame.select(least=pl.col("timestamp").min(), most=pl.col("timestamp").max()).row(0)
    finite = bool(frame["timestamp"].is_finite().all())
    scale = MICROSECONDS[form.get("time_unit", "s")]
    return finite and len(frame) > 0 and least * scale >= 0 and most * scale < LATEST


def _written(frame: pl.DataFrame, column: str) -> pl.Expr:
    """Whether a field has anything in it."""
    if column not in frame.columns:
        return pl.lit(False)
    if frame.schema[column] == pl.String:
        return pl.col(column).fill_null("").str.strip_chars() != ""
    return pl.col(column).is_not_null()


def _number(frame: pl.DataFrame, column: str) -> pl.Expr:
    """Finite numbers as Float64, null for all else."""
    if column not in frame.columns:
        return pl.lit(None, pl.Float64)
    value = pl.col(column)
    if frame.schema[column] == pl.String:
        value = value.str.strip_chars()
    value = value.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def _time(frame: pl.DataFrame, form: Entry) -> pl.Expr:
    """Microseconds since 1970, null for what is no time. Typed times (Parquet) know their own unit."""
    if "timestamp" not in frame.columns or not _has_times(form):
        return pl.lit(None, pl.Int64)
    value, unit = pl.col("timestamp"), form.get("time_unit", "s")
    kind = frame.schema["timestamp"]
    if unit == "iso" and not kind.is_temporal():
        text = value.cast(pl.String).str.strip_chars().str.replace("^(.{10}) ", "${1}T")
        text = text.str.replace(" ?(Z|UTC)$", "+00:00").str.replace(
            "([+-][0-9]{2}):?([0-9]{2})$", "${1}:${2}"
        )
        zoned = [text.str.to_datetime(form + "%:z", strict=False, time_unit="us") for form in ISO]
        parsed = [text.str.to_datetime(form, strict=False, time_unit="us") for form in ISO]
        day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        return pl.coalesce(*parsed, *(one.dt.replace_time_zone(None) for one in zoned), day).dt.epoch("us")
    scale, number = MICROSECONDS.get(unit, 1.0), _number(frame, "timestamp")
    if kind.is_temporal():
        scale = MICROSECONDS[kind.time_unit] if isinstance(kind, pl.Datetime) else 86_400e6  # else days
        number = value.to_physical().cast(pl.Float64)
    number = (number * scale).floor()
    far = pl.when(number.is_not_null()).then(-1.0)  # too large for a whole number, and for a time
    return pl.when(number.abs() < 2.0**62).then(number).otherwise(far).cast(pl.Int64)
