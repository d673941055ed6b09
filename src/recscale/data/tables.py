"""Files to columns of text, a block at a time, whatever kind of log they are.

Columns go by our names. Where a time stands in several columns they are joined by a blank; a column that
only chooses rows (`keep`, `drop` of the dataset) is called CHOICE and its own name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pyarrow.parquet

from recscale.data import nested, parse, raw, times
from recscale.data.parse import Block
from recscale.errors import InputError

Entry = Mapping[str, Any]

KEYS = ("user", "item", "rating", "timestamp", "domain")
CHOICE = "="  # before the name of a column that chooses rows
WHOLE = 2.0**53  # beyond it a column of floating point has lost whole numbers
SEP_LINE = re.compile(rb"sep=.\r?\n")  # how Excel is told the separator


def columns(form: Entry, chosen: Sequence[str], name: str) -> dict[str, str | int]:
    """Our names to theirs, or to places where `columns` is a list. Raises InputError."""
    given = form["columns"]
    found: dict[str, str | int] = {}  # a column that chooses rows and is used for itself is read once
    if isinstance(given, Mapping):
        for ours, theirs in given.items():
            parts = [theirs] if isinstance(theirs, str) else theirs
            found |= {_part(ours, k): part for k, part in enumerate(parts)}
        return found | {CHOICE + theirs: theirs for theirs in chosen if theirs not in found.values()}
    for place, ours in enumerate(given):
        if ours in KEYS:
            found[_part(ours, sum(one == ours for one in given[:place]))] = place
    for theirs in chosen:
        if theirs not in given:
            raise InputError(f"{name}: has no column {theirs} (keep, drop); its columns: {', '.join(given)}")
        if given.index(theirs) not in found.values():
            found[CHOICE + theirs] = given.index(theirs)
    return found


def _part(ours: str, k: int) -> str:
    return f"{ours}_{k}" if k else ours


def tables(
    path: Path, member: str | None, name: str, form: Entry, block: int, chosen: Sequence[str] = ()
) -> Iterator[Block]:
    """The columns of a file or archive member. `chosen`: names of columns that choose rows.

    Raises InputError naming the file for what is no such log.
    """
    kind = form.get("kind", "text")
    wanted = {} if kind == "sequences" else columns(form, chosen, name)
    if kind == "parquet":
        found = _parquet(path, member, name, wanted, block)
    else:
        found = _lines(path, member, form, wanted, block, chosen)
    more = [ours for ours in wanted if ours.startswith("timestamp_")]
    twice = _twice(form, wanted, chosen)
    for table in found:
        if twice:
            copies = [pl.col(ours).cast(pl.String).alias(CHOICE + theirs) for theirs, ours in twice.items()]
            table = replace(table, frame=table.frame.with_columns(copies))
        if more:
            parts = [pl.col(ours).cast(pl.String).str.strip_chars() for ours in ["timestamp", *more]]
            joined = pl.concat_str(parts, separator=" ").alias("timestamp")
            table = replace(table, frame=table.frame.with_columns(joined).drop(more))
        yield table


def _twice(form: Entry, wanted: Mapping[str, str | int], chosen: Sequence[str]) -> dict[str, str]:
    """Of the columns that choose rows those that are used for themselves too, by our names for these."""
    found = {}
    for theirs in chosen:
        if wanted and CHOICE + theirs not in wanted:
            place = theirs if isinstance(form["columns"], Mapping) else form["columns"].index(theirs)
            found[theirs] = next(ours for ours, at in wanted.items() if at == place)
    return found


def unused(path: Path, member: str | None, form: Entry, chosen: Sequence[str]) -> list[str]:
    """The columns of a file that neither `columns` nor `chosen` names. Raises InputError."""
    kind, given = form.get("kind", "text"), form.get("columns")
    if kind == "sequences":
        return []
    if not isinstance(given, Mapping):
        return [one for one in given or () if one not in (*KEYS, *chosen)]
    name = f"{path}: {member}" if member else str(path)
    used = {str(theirs) for theirs in columns(form, chosen, name).values()}
    if kind == "parquet":
        if member:
            return []
        with raw.told(name), pyarrow.parquet.ParquetFile(path) as file:
            return [one for one in file.schema_arrow.names if one not in used]
    with raw.opened(path, member) as stream:
        head = next(raw.blocks(stream, 2**16), b"")
    lines = [line for line in head.split(b"\n") if line.strip()]
    if kind == "jsonl":
        try:
            found = [way for _, way in nested.paths(parse.json_object(lines[0]))]
        except (ValueError, IndexError):  # what is no JSON is told with its line, as a row
            return []
        return [way for way in found if way not in used and way.partition("[]")[0].split(".")[0] not in used]
    skipped = form["comment"].encode() if "comment" in form else b"sep="
    lines = [line for line in lines if not line.startswith(skipped)]
    if not lines:
        return []
    return [
        one
        for one in parse.header(lines[0], form.get("separator", ","), quote_of(form), name)
        if one not in used
    ]


def _lines(
    path: Path,
    member: str | None,
    form: Entry,
    wanted: Mapping[str, str | int],
    block: int,
    chosen: Sequence[str],
) -> Iterator[Block]:
    kind = form.get("kind", "text")
    with raw.opened(path, member) as stream:
        if kind == "text":
            yield from _text(stream, form, wanted, block)
        elif kind == "jsonl":
            line = 1
            theirs = {ours: str(key) for ours, key in wanted.items()}
            read = nested.objects if any(map(nested.is_path, theirs.values())) else parse.objects
            for part in raw.blocks(stream, block):
                table = read(part, line, theirs)
                line += table.lines
                yield table
        elif chosen:
            raise InputError(f"{stream.name}: has no column {chosen[0]} (keep, drop): sequences have none")
        else:
            yield from _sequences(stream, form, block)


def quote_of(form: Entry) -> str:
    """How fields of text may be quoted: double, backslash or none."""
    return str(form.get("quote", "double" if form.get("separator", ",") in (",", ";") else "none"))


def _text(stream: raw.Stream, form: Entry, wanted: Mapping[str, str | int], block: int) -> Iterator[Block]:
    separator, quote = form.get("separator", ","), quote_of(form)
    by_name = isinstance(form["columns"], Mapping)
    names: list[str] = [] if by_name else _placed(wanted, len(form["columns"]))
    numbers = [ours for ours in ("rating", "timestamp") if ours in wanted]
    lists = form.get("list_separator")
    if lists or not times.numeric(form) or "timestamp_1" in wanted:
        numbers = [ours for ours in numbers if ours != "timestamp" and not lists]
    comment = form["comment"].encode() if "comment" in form else None
    line, rest, waiting, head_left = 1, b"", form.get("header", False), True
    for part in raw.blocks(stream, block):
        while head_left and (
            (comment is not None and part.startswith(comment))
            or (line == 1 and SEP_LINE.match(part))
            or (waiting and part.startswith((b"\n", b"\r\n")))
        ):
            _, _, part = part.partition(b"\n")
            line += 1
        if not part:
            continue
        head_left = False
        if waiting:
            head, _, part = part.partition(b"\n")
            waiting, line = False, line + 1
            found = parse.header(head, separator, quote, stream.name)
            if by_name:
                names = _renamed(found, wanted, stream.name)
            elif _is_row(found, names, form, part):
                shown = parse.shown(head)
                raise InputError(f"{stream.name}: line {line - 1} is no header: {shown!r} (header: false)")
            if not part:
                continue
        table = parse.delimited(rest + part, line, separator, names, list(wanted), numbers, quote, last=False)
        line, rest = line + table.lines, table.rest
        yield nested.split(table, lists) if lists else table
    if rest and names:
        table = parse.delimited(rest, line, separator, names, list(wanted), numbers, quote, last=True)
        yield nested.split(table, lists) if lists else table


def _placed(wanted: Mapping[str, str | int], n: int) -> list[str]:
    names = [f"_{k}" for k in range(n)]
    for ours, place in wanted.items():
        names[int(place)] = ours
    return names


def _is_row(head: list[str], names: list[str], form: Entry, part: bytes) -> bool:
    """Whether what should be a header is a row: it has a time, a number, or a key that comes again."""
    fields = dict(zip(names, (one.strip().strip('"') for one in head), strict=False))
    if form.get("time_unit") != "none" and times.are_times([fields.get("timestamp", "")]):
        return True
    plain = [one.strip() for one in head]
    if plain == [str(k) for k in range(len(plain))]:  # how pandas names columns that have no name
        return False
    if any(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", one) for one in plain):
        return True
    texts = parse.delimited(
        part[: 2**20].rpartition(b"\n")[0] or part, 1, form.get("separator", ","), names, ["user", "item"],
        [], quote_of(form), last=True,
    ).frame  # fmt: skip
    return any(fields.get(key, "") in texts[key].unique().to_list() for key in ("user", "item"))


def _renamed(found: list[str], wanted: Mapping[str, str | int], name: str) -> list[str]:
    """The header with our names for the columns asked for. Raises InputError where one is not there."""
    names = [f"_{k}" for k in range(len(found))]
    for ours, theirs in wanted.items():
        if found.count(str(theirs)) != 1:
            has = "no" if theirs not in found else "more than one"
            listed = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
            meant = "keep, drop" if ours.startswith(CHOICE) else ours
            raise InputError(f"{name}: has {has} column {theirs} ({meant}); its columns: {listed}")
        names[found.index(str(theirs))] = ours
    return names


def _parquet(
    path: Path, member: str | None, name: str, wanted: Mapping[str, str | int], block: int
) -> Iterator[Block]:
    """Columns as they are typed there; keys of any type become text. Lists have a row an element."""
    where: Any = path
    if member:
        with raw.opened(path, member) as stream:
            where = io.BytesIO(stream.read())
    row = 1
    with raw.told(name), pyarrow.parquet.ParquetFile(where) as file:
        _renamed(file.schema_arrow.names, wanted, name)
        names = list(dict.fromkeys(map(str, wanted.values())))
        for batch in file.iter_batches(max(1, block // 64), columns=names):
            # Without metadata and looked through: damage there would end the process inside polars.
            sound = pyarrow.RecordBatch.from_arrays(batch.columns, names=names)
            sound.validate(full=True)
            frame = pl.DataFrame(sound)
            frame = frame.select(pl.col(str(theirs)).alias(ours) for ours, theirs in wanted.items())
            for ours, kind in frame.schema.items():
                if isinstance(kind, pl.Struct):
                    raise InputError(
                        f"{name}: column {wanted[ours]} ({ours}) is a struct: write its fields as columns"
                    )
                if isinstance(kind, pl.Categorical | pl.Enum):
                    frame = frame.with_columns(pl.col(ours).cast(pl.String))
            n = len(frame)
            table = nested.exploded(Block(frame, range(row, row + n), n))
            yield replace(table, frame=_with_text_keys(table.frame, name))
            row += n


def _with_text_keys(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    keys = [key for key in frame.columns if key not in ("rating", "timestamp")]
    for key in keys:
        if frame.schema[key].is_float():
            if (frame[key].fill_nan(None).abs() >= WHOLE).any():
                raise InputError(
                    f"{name}: column of the {key} is floating point and has numbers above 2^53, which are no "
                    "longer exact: write it as whole numbers or text"
                )
            whole = pl.col(key).cast(pl.Int64, strict=False)
            other = pl.col(key).fill_nan(None).cast(pl.String)
            text = pl.when(whole == pl.col(key)).then(whole.cast(pl.String)).otherwise(other)
            frame = frame.with_columns(text.alias(key))
        elif frame.schema[key].is_decimal():
            frame = frame.with_columns(pl.col(key).cast(pl.String).str.replace(r"\.0+$", ""))
    return frame.with_columns(pl.col(key).cast(pl.String) for key in keys)


def _sequences(stream: raw.Stream, form: Entry, block: int) -> Iterator[Block]:
    separator = form.get("time_separator")
    if stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        yield parse.mapping(stream.read(), separator, stream.name)
        return
    line = 1
    for part in raw.blocks(stream, block):
        table = parse.histories(part, line, separator, form.get("separator"))
        line += table.lines
        yield table
