"""Raw interaction logs: archive members in, one table (user, item, rating, timestamp) out."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recscale.errors import InputError

COLUMNS = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}


def read(path: Path, source: Mapping[str, Any]) -> pl.DataFrame:
    """Interactions of one source in row order: user, item (text), rating, timestamp (seconds).

    `source` is an entry of config/datasets.yaml: `members` of the archive at `path` (none: the file
    itself), read one after the other. Raises InputError naming file and member.
    """
    parts = []
    for member in source.get("members") or [None]:
        try:
            raw = _bytes(path, member)
            parts.append(_parse(raw, source["format"]))
        except (pl.exceptions.PolarsError, zipfile.BadZipFile, KeyError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            name = f"{path}: {member}" if member else str(path)
            raise InputError(f"{name}: is not a readable interaction log: {reason}") from error
    frame = pl.concat(parts)
    if frame.is_empty():
        raise InputError(f"{path}: has no interactions")
    _check_rows(frame, path)
    frame = frame.with_columns(pl.col("timestamp").cast(pl.Int64))
    prefix = source.get("strip_user_prefix")
    return frame.with_columns(pl.col("user").str.strip_prefix(prefix)) if prefix else frame


def _bytes(path: Path, member: str | None) -> bytes:
    if member is None:
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def _parse(raw: bytes, form: Mapping[str, Any]) -> pl.DataFrame:
    separator, names = form["separator"], list(form["columns"])
    if separator == "::":  # one-byte separators only: read the empty field between the colons too
        names = [part for name in names for part in (name, f"_{name}")][:-1]
    frame = pl.read_csv(
        raw,
        has_header=False,
        skip_rows=int(form.get("header", False)),
        separator=separator[0],
        quote_char=None,
        new_columns=names,
        schema_overrides={name: COLUMNS.get(name, pl.String) for name in names},
    )
    return frame.select(*COLUMNS)


def _check_rows(frame: pl.DataFrame, path: Path) -> None:
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
            f"{path}: {len(rows)} of {len(frame)} rows lack a user, an item or a timestamp in whole "
            f"seconds, the first is row {rows[0]}"
        )


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
