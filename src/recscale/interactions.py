"""Raw interaction logs: files and archive members in, one table out, in row order.

The table: user, item (text), rating (null where there is none), timestamp (seconds), domain (text of
the file, or null).
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recscale.errors import InputError

COLUMNS = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
UNITS = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
BROKEN = (
    pl.exceptions.PolarsError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, KeyError, EOFError
)  # fmt: skip
Entry = Mapping[str, Any]


def read(paths: Sequence[Path], source: Entry) -> pl.DataFrame:
    """Interactions of one source, its files and their members one after the other.

    `source` is an entry of config/datasets.yaml, `paths` are where its `files` lie. Raises InputError
    naming file and member for what is no such log, and for rows that have no place in a sequence.
    """
    parts = []
    for path, file in zip(paths, source["files"], strict=True):
        for member in file.get("members") or [None]:
            name = f"{path}: {member}" if member else str(path)
            try:
                raw = _bytes(path, member)
                part = _parse(raw, source["format"])
            except InputError as error:
                raise InputError(f"{source['name']}: {error}") from error
            except BROKEN as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{name}: is not a readable interaction log: {reason}") from error
            if "rows" in file and len(part) != file["rows"]:
                raise InputError(f"{name}: has {len(part)} rows, the file has {file['rows']}")
            _check_rows(part, name)
            parts.append(part.with_columns(domain=pl.lit(file.get("domain"), pl.String)))
    frame = pl.concat(parts).with_columns(pl.col("timestamp").cast(pl.Int64))
    if frame.is_empty():
        raise InputError(f"{source['name']}: {', '.join(map(str, paths))}: has no interactions")
    prefix = source.get("strip_user_prefix")
    return frame.with_columns(pl.col("user").str.strip_prefix(prefix)) if prefix else frame


def _bytes(path: Path, member: str | None) -> bytes:
    if member is None:
        raw = path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            raw = archive.read(member)
    return gzip.decompress(raw) if (member or path.name).endswith(".gz") else raw


def _parse(raw: bytes, form: Entry) -> pl.DataFrame:
    """The columns of COLUMNS; rating is null where the format has none."""
    kind, columns = form.get("kind", "text"), form["columns"]
    if isinstance(columns, Mapping):
        if kind == "text" and (not form.get("header", False) or form.get("separator") == "::"):
            raise InputError("format: columns by name need a header, and a separator of one character")
        frame = _named(raw, kind, form, dict(columns))
    elif kind == "text":
        frame = _placed(raw, form, list(columns))
    else:
        raise InputError(f"format: columns: {kind} needs a mapping of user, item, ... to its names")
    if "rating" not in frame.columns:
        frame = frame.with_columns(rating=pl.lit(None, pl.Float64))
    unit, time = form.get("time_unit", "s"), pl.col("timestamp")
    if unit == "iso":
        time = time.str.to_datetime(strict=False, time_unit="us").dt.epoch("s")
    elif unit != "s":
        time = (time / UNITS[unit]).floor()
    return frame.select(
        pl.col("user").cast(pl.String),
        pl.col("item").cast(pl.String),
        pl.col("rating").cast(pl.Float64),
        time.cast(pl.Float64),
    )


def _named(raw: bytes, kind: str, form: Entry, columns: dict[str, str]) -> pl.DataFrame:
    """Columns taken by their names in a header, in JSON objects or in a Parquet schema."""
    names = {theirs: ours for ours, theirs in columns.items() if ours in COLUMNS}
    if kind == "parquet":
        frame = pl.read_parquet(io.BytesIO(raw), columns=list(names))
    elif kind == "jsonl":
        types = {theirs: _type(ours, form) for theirs, ours in names.items()}
        frame = pl.read_ndjson(io.BytesIO(raw), schema=types)
    else:
        types = {theirs: _type(ours, form) for theirs, ours in names.items()}
        frame = pl.read_csv(
            raw,
            separator=form.get("separator", ","),
            columns=list(names),
            schema_overrides=types,
            quote_char='"',
        )
    return frame.rename(names)


def _placed(raw: bytes, form: Entry, names: list[str]) -> pl.DataFrame:
    """Columns taken by their place."""
    separator = form.get("separator", ",")
    if separator == "::":  # one-byte separators only: read the empty field between the colons too
        names = [part for name in names for part in (name, f"_{name}")][:-1]
    frame = pl.read_csv(
        raw,
        has_header=False,
        skip_rows=int(form.get("header", False)),
        separator=separator[0],
        quote_char=None,
        new_columns=names,
        schema_overrides={name: _type(name, form) for name in names},
    )
    return frame.select(name for name in COLUMNS if name in frame.columns)


def _type(name: str, form: Entry) -> Any:
    if name == "timestamp" and form.get("time_unit") == "iso":
        return pl.String
    return COLUMNS.get(name, pl.String)


def _check_rows(frame: pl.DataFrame, where: str) -> None:
    """Raise InputError for rows that have no place in a sequence, naming the first."""
    time = pl.col("timestamp")
    broken = pl.any_horizontal(
        pl.col("user").fill_null("") == "",
        pl.col("item").fill_null("") == "",
        time.is_null() | ~time.is_finite() | (time != time.floor()),
    )
    rows = frame.with_row_index("row", offset=1).filter(broken)["row"]
    if len(rows):
        raise InputError(
            f"{where}: {len(rows)} of {len(frame)} rows lack a user, an item or a timestamp in whole "
            f"seconds, the first is row {rows[0]}"
        )


def keep(log: pl.DataFrame, dataset: Entry) -> tuple[pl.DataFrame, dict[str, int]]:
    """What the filters of a dataset leave, in row order, and the rows that each took.

    In this order: exact duplicates (user, item, rating and time; the first stays), `min_rating` (what
    has no rating goes too), `after` and `before` (dates; from the first to the day before the second),
    `k_core` (users and items with fewer interactions go until none is left).
    """
    taken: dict[str, int] = {}

    def note(name: str, kept: pl.DataFrame) -> pl.DataFrame:
        taken[name] = len(log) - len(kept)
        return kept

    if dataset.get("drop_duplicates", True):
        columns = ["user", "item", "rating", "timestamp"]
        log = note("exact_duplicates", log.unique(columns, keep="first", maintain_order=True))
    if "min_rating" in dataset:
        log = note("rating_below_minimum", log.filter(pl.col("rating") >= dataset["min_rating"]))
    for key, name in (("after", "before_first_day"), ("before", "after_last_day")):
        if key in dataset:
            day = pl.lit(str(dataset[key])).str.to_date().dt.epoch("s")
            log = note(name, log.filter((pl.col("timestamp") >= day) == (key == "after")))
    if dataset.get("k_core", 0):
        log = note(f"outside_{dataset['k_core']}_core", _core(log, dataset["k_core"]))
    return log, taken


def _core(log: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has k interactions or more."""
    while True:
        before = len(log)
        log = log.filter(pl.len().over("user") >= k)
        log = log.filter(pl.len().over("item") >= k)
        if len(log) == before:
            return log


def check(frame: pl.DataFrame, expect: Mapping[str, Any], where: str) -> None:
    """Compare rows, users, items and the rating histogram with what the dataset must have.

    Raises InputError that names the first count which differs.
    """
    found: dict[str, Any] = {
        "rows": len(frame),
        "users": frame["user"].n_unique(),
        "items": frame["item"].n_unique(),
    }
    if "ratings" in expect:
        rating, count = frame["rating"].value_counts(sort=False).sort("rating")
        found["ratings"] = {f"{r:g}": c for r, c in zip(rating, count, strict=True)}
    for key, value in expect.items():
        wanted = {f"{r:g}": c for r, c in value.items()} if key == "ratings" else value
        if found[key] != wanted:
            raise InputError(f"{where}: has {key} {found[key]}, the dataset has {wanted}")
