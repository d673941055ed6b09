"""Blocks of text to columns of text: one row a line (a record where fields are quoted), none lost.

A block is bytes of whole lines. Every function returns a Block: what it read, the line each row began
at, and the lines that are no row, with a reason.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recscale.data.raw import LONGEST_LINE
from recscale.errors import InputError

Bad = tuple[int, str, str]  # line, reason, the line itself as far as it can be shown
csv.field_size_limit(LONGEST_LINE)  # as without quotes
MOST_COLUMNS = 10_000
LONGEST_RECORD = 64  # lines; a quote that is open longer was never meant to be one
EXTRA = "_more"  # whatever stands behind the last column that is named
SHOWN = 200  # characters of a bad line


@dataclass(frozen=True)
class Block:
    """`frame` has the columns asked for; its row r began in line `line[r]` of the file (from 1).

    `rest` is the end of the block where a quoted field goes on behind it, to be read with the next one;
    `lines` are those of the block without it, `blank` the empty ones among them.
    """

    frame: pl.DataFrame
    line: npt.NDArray[np.int64] | range
    lines: int
    bad: list[Bad] = field(default_factory=list)
    rest: bytes = b""
    blank: int = 0


def shown(raw: bytes | str) -> str:
    """A line for a person: cut off, what cannot be printed escaped."""
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")
    return text[:SHOWN].rstrip("\r\n").replace("\0", "\\0")


def sound(block: bytes, line: int, returns: bool) -> tuple[bytes, npt.NDArray[np.int64] | range, list[Bad]]:
    """The block without lines that have a NUL or are not UTF-8, the numbers of those left, the others.

    `returns`: nor lines with a carriage return inside. Most blocks are sound, and that is seen without
    splitting them.
    """
    codes = np.frombuffer(block, np.uint8)
    n = int(np.count_nonzero(codes == 10)) + (not block.endswith(b"\n"))
    inside = returns and b"\r" in block and _returns_inside(codes)
    if not inside and b"\0" not in block and (block.isascii() or _utf8(block)):
        return block, range(line, line + n), []
    kept: list[bytes] = []
    good = np.ones(n, bool)
    bad: list[Bad] = []
    for k, one in enumerate(split_lines(block)):
        reason = "nul_byte" if b"\0" in one else "" if _utf8(one) else "not_utf8"
        if returns and b"\r" in one.removesuffix(b"\n").removesuffix(b"\r"):
            reason = reason or "carriage_return"
        if reason:
            bad.append((line + k, reason, shown(one)))
            good[k] = False
        else:
            kept.append(one)
    return b"".join(kept), np.arange(line, line + n)[good], bad


def _returns_inside(codes: npt.NDArray[np.uint8]) -> bool:
    """Whether a carriage return stands anywhere but at the end of a line."""
    after = np.flatnonzero(codes == 13) + 1
    return bool((codes[after[after < len(codes)]] != 10).any())


def split_lines(block: bytes) -> list[bytes]:
    """Lines with their ends; only a line feed ends one."""
    parts = [part + b"\n" for part in block.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


def _utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def delimited(
    block: bytes,
    line: int,
    separator: str,
    names: Sequence[str],
    wanted: Sequence[str],
    numbers: Sequence[str],
    quote: str,
    last: bool,
) -> Block:
    """Columns `wanted` of `names`, and EXTRA: what a row has behind its last column.

    Those in `numbers` are Float64 where every row of the block has one, else text, so that the caller can
    tell what is wrong with which. A missing or empty field is null. `quote`: double, backslash (a quote
    inside of quotes stands behind one) or none. `last`: no block follows.
    """
    quoted = quote != "none" and b'"' in block
    block, lines, bad = sound(block, line, returns=not quoted)
    n = len(lines) + len(bad)
    if not block:
        return Block(pl.DataFrame(schema=dict.fromkeys([*wanted, EXTRA], pl.String)), lines, n, bad)
    if quoted:
        return _quoted(block, lines, bad, separator, names, wanted, quote, last)
    if len(separator) == 2:  # one byte at a time: an empty field stands between the two
        names = [part for name in names for part in (name, f"_behind_{name}")][:-1]
    between = [name for name in names if name.startswith("_behind_")]
    header = separator[0].join([*(f"c{k}" for k in range(len(names))), EXTRA]).encode() + b"\n"
    at = {name: f"c{names.index(name)}" for name in [*wanted, *between]} | {EXTRA: EXTRA}

    def parsed(types: dict[str, Any]) -> pl.DataFrame:
        return pl.read_csv(
            header + block,
            separator=separator[0],
            quote_char=None,
            columns=list(at.values()),
            schema_overrides={column: types.get(name, pl.String) for name, column in at.items()},
            truncate_ragged_lines=True,
            ignore_errors=True,
        ).rename({column: name for name, column in at.items()})

    frame = parsed(dict.fromkeys(numbers, pl.Float64))
    if numbers and any(frame.select(numbers).null_count().row(0)):
        frame = parsed({})
    if between:
        full = pl.coalesce(EXTRA, *between)
        frame = frame.select(*wanted, full.alias(EXTRA))
    frame = frame.select(*wanted, EXTRA)
    blank = 0
    if frame[wanted[0]].null_count():  # an empty line perhaps
        filled = np.array([bool(one.strip(b"\r\n")) for one in split_lines(block)])
        frame, lines = frame.filter(pl.Series(filled)), np.asarray(lines)[filled]
        blank = int(np.count_nonzero(~filled))
    return Block(frame, lines, n, bad, blank=blank)


def _quoted(
    block: bytes,
    lines: npt.NDArray[np.int64] | range,
    bad: list[Bad],
    separator: str,
    names: Sequence[str],
    wanted: Sequence[str],
    quote: str,
    last: bool,
) -> Block:
    """By Python's csv module: exact about quotes, separators and line ends inside them, and slower."""
    n = len(lines) + len(bad)
    pending = [part.decode() for part in reversed(split_lines(block))]
    taken: list[str] = []
    ran_out = False

    def feed() -> Iterator[str]:
        nonlocal ran_out
        while pending and len(taken) < LONGEST_RECORD:
            taken.append(pending.pop())
            yield taken[-1]
        ran_out = not pending

    at = [*(names.index(name) for name in wanted), len(names)]
    escape = "\\" if quote == "backslash" else None
    rows: list[list[str | None]] = []
    begun: list[int] = []
    place, blank, rest = 0, 0, b""
    while pending:
        taken.clear()
        ran_out = False
        try:
            fields = next(
                csv.reader(
                    feed(),
                    delimiter=separator,
                    escapechar=escape,
                    skipinitialspace=separator != " ",
                    strict=True,
                )
            )
        except csv.Error:
            if ran_out and not last and len(taken) < LONGEST_RECORD:
                rest = "".join(taken).encode()
                break
            bad.append((int(lines[place]), "broken_quotes", shown(taken[0])))
            pending.extend(reversed(taken[1:]))
            place += 1
            continue
        if fields:
            rows.append([fields[k] or None if k < len(fields) else None for k in at])
            begun.append(int(lines[place]))
        blank += not fields
        place += len(taken)
    frame = pl.DataFrame(rows, schema=dict.fromkeys([*wanted, EXTRA], pl.String), orient="row")
    return Block(frame, np.array(begun, np.int64), n - rest.count(b"\n"), bad, rest, blank)


def header(line: bytes, separator: str, quote: str, name: str) -> list[str]:
    """Names of the columns in a file's first line. Raises InputError for what is none."""
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{name}: line 1: is not UTF-8") from None
    if len(separator) == 2:
        names = text.split(separator)
    else:
        quoting = csv.QUOTE_NONE if quote == "none" else csv.QUOTE_MINIMAL
        try:
            rows = csv.reader([text], delimiter=separator, quoting=quoting, skipinitialspace=True)  # type: ignore[arg-type]
            names = next(rows, [])
        except csv.Error as error:
            raise InputError(f"{name}: line 1: is no header: {error}") from error
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{name}: has {len(names):,} columns, legal are {MOST_COLUMNS:,} at most")
    return [one.strip() for one in names]


def objects(block: bytes, line: int, wanted: Mapping[str, str]) -> Block:
    """JSON lines: the values of the keys `wanted` (ours: theirs), as text."""
    block, lines, bad = sound(block, line, returns=False)
    n = len(lines) + len(bad)
    theirs = list(dict.fromkeys(wanted.values()))
    columns = [pl.col(key).alias(name) for name, key in wanted.items()]
    frame = _values(block, theirs)
    odd = pl.any_horizontal(pl.all().str.contains("\0", literal=True)).any()  # so half characters are given
    if frame is not None and len(frame) == len(lines) and not frame.select(odd).item():
        return Block(frame.select(columns), lines, n, bad)
    kept: list[int] = []
    good: list[bytes] = []
    for number, one in zip(lines, split_lines(block), strict=True):
        try:
            if one.strip():
                content = json_object(one)
                for key in theirs:
                    plain(content.get(key))
                # NaN is no JSON, and null to us; what has none stays as it was written.
                odd_number = b"NaN" in one or b"Infinity" in one
                good.append(json.dumps(content).encode() + b"\n" if odd_number else one.rstrip() + b"\n")
                kept.append(int(number))
        except (ValueError, RecursionError) as error:
            bad.append((int(number), reason_of(error), shown(one)))
    blank = n - len(bad) - len(kept)
    frame = _values(b"".join(good), theirs)
    if frame is None or len(frame) < len(good):  # what Python reads and polars does not
        each = [_values(one, theirs) for one in good]
        bad += [(kept[k], "not_json", shown(good[k])) for k, row in enumerate(each) if row is None]
        kept = [kept[k] for k, row in enumerate(each) if row is not None]
        nothing = pl.DataFrame(schema=dict.fromkeys(theirs, pl.String))
        frame = pl.concat([nothing, *(row for row in each if row is not None)])
    return Block(frame.select(columns), np.array(kept, np.int64), n, bad, blank=blank)


def _values(block: bytes, keys: Sequence[str]) -> pl.DataFrame | None:
    """The values of these keys as text, a row a line; None where a line is no JSON to polars."""
    schema = dict.fromkeys(keys, pl.String)
    if not block:
        return pl.DataFrame(schema=schema)
    try:
        return pl.read_ndjson(BytesIO(block), schema=schema)
    except pl.exceptions.PolarsError:
        return None


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; NaN and infinity are null, as a missing rating is written by many.

    Raises ValueError for what is none.
    """
    content = json.loads(line, object_pairs_hook=_first, parse_constant=lambda _: None)
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that is there twice the first, as polars has it."""
    return dict(reversed(pairs))


@dataclass(frozen=True)
class _Pairs:
    """A JSON object as it is written: a key may be there more than once."""

    pairs: list[tuple[str, Any]]


def _pairs_of(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


class NoKey(ValueError):
    """A text that no file in UTF-8 could have; says why."""


def reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, NoKey) else "not_json"


def plain(value: Any) -> str | None:
    """A JSON value as the text that polars gives for it. Raises NoKey."""
    if value is None:
        return None
    if isinstance(value, str):
        if "\0" in value:
            raise NoKey("nul_byte")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise NoKey("not_utf8")
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, default=lambda pairs: dict(pairs.pairs))


def histories(block: bytes, line: int, time_separator: str | None, separator: str | None = None) -> Block:
    """`user item item ...`, a user a line, each item perhaps with its time behind `time_separator`.

    `separator`: between them; without it any blanks and tabs.
    """
    block, lines, bad = sound(block, line, returns=False)
    n = len(lines) + len(bad)
    words = [_words(part, separator) for part in split_lines(block)]
    split = pl.DataFrame({"line": list(lines), "words": words},
                         schema={"line": pl.Int64, "words": pl.List(pl.String)})  # fmt: skip
    flat = split.filter(pl.col("words").list.len() > 0).select(
        "line",
        user=pl.col("words").list.first(),
        item=pl.col("words").list.slice(1),
    )
    table = _pairs(flat, time_separator, n, bad)
    return replace(table, blank=int((split["words"].list.len() == 0).sum()))


def _words(line: bytes, separator: str | None) -> list[str]:
    words = line.decode().rstrip("\r\n").split(None if separator == " " else separator)
    return [] if words == [""] else words


def mapping(raw: bytes, time_separator: str | None, name: str) -> Block:
    """One JSON object, user: [item, ...]. Raises InputError for anything else; `line` counts users."""
    try:
        content = json.loads(raw.removeprefix(b"\xef\xbb\xbf"), object_pairs_hook=_pairs_of)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not a readable interaction log: no JSON: {error}") from error
    if not isinstance(content, _Pairs):
        raise InputError(f"{name}: is not a readable interaction log: legal is one object of lists")
    rows: list[tuple[int, str, list[str | None]]] = []
    bad: list[Bad] = []
    for n, (user, items) in enumerate(content.pairs, 1):
        try:
            if not isinstance(items, list) or any(isinstance(item, list | _Pairs) for item in items):
                raise NoKey("not_a_list_of_items")
            rows.append((n, str(plain(user)), [plain(item) for item in items]))
        except NoKey as error:
            bad.append((n, str(error), shown(ascii(user))))
    flat = pl.DataFrame(
        rows, schema={"line": pl.Int64, "user": pl.String, "item": pl.List(pl.String)}, orient="row"
    )
    return _pairs(flat, time_separator, 0, bad)


def _pairs(flat: pl.DataFrame, time_separator: str | None, n: int, bad: list[Bad]) -> Block:
    """A row an item; a user without items is one row without an item."""
    frame = flat.explode("item", empty_as_null=True, keep_nulls=True)
    if time_separator:
        parts = pl.col("item").str.split_exact(time_separator, 2)
        names = {"item": "field_0", "timestamp": "field_1", EXTRA: "field_2"}
        frame = frame.with_columns(parts.struct.field(part).alias(name) for name, part in names.items())
    return Block(frame.drop("line"), frame["line"].to_numpy(), n, bad)
