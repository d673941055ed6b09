"""Tables beside a log: what its users and items are really called, and the domain of each item.

A file of a source may name a table of `items` and one of `users` (config/datasets.yaml). Text has a row an
item, with columns `item` (as the log calls it), `key` (what it is to be called) and `domain`; JSON is an
object of key to what the log calls it, or of key to a pair of that and the number of its domain.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recscale.data import raw
from recscale.errors import InputError

Entry = Mapping[str, Any]
NAMES = {"name": pl.String, "key": pl.String, "domain": pl.String}


def parts(source: Entry) -> list[Entry]:
    """All files of a source: its logs in order, then the tables beside them that are files of their own."""
    found = list(source["files"])
    for file in source["files"]:
        for table in (file[kind] for kind in ("items", "users") if kind in file):
            if table["file"] not in (part["file"] for part in found):
                found.append(table)
    return found


def read(path: Path, entry: Entry, column: str) -> pl.DataFrame:
    """NAMES of the items or users (`column`: item or user) of a table; key or domain is null where unknown.

    Raises InputError naming the file for what is no such table, or has a name twice.
    """
    with raw.opened(path, entry.get("member")) as stream:
        content, name = _decoded(stream.read()), stream.name
    try:
        rows = list(_json(content, entry) if _is_json(entry) else _text(content, entry, column))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{name}: is no table of {column}s as its entry says: {reason}") from error
    table = pl.DataFrame(rows, schema=NAMES, orient="row")
    if table.is_empty():
        raise InputError(f"{name}: has no {column}s")
    twice = table.filter(pl.col("name").is_duplicated())
    if len(twice):
        raise InputError(f"{name}: has the {column} {twice['name'][0]!r} more than once")
    return table


def apply(frame: pl.DataFrame, table: pl.DataFrame, column: str, where: str) -> pl.DataFrame:
    """A frame of interactions with the keys and, of items, the domains of the table.

    Rows stay in order. Raises InputError where the table has keys but not one that is needed.
    """
    joined = frame.join(table.rename({"domain": "_domain"}), left_on=column, right_on="name", how="left",
                        maintain_order="left")  # fmt: skip
    if table["key"].null_count() < len(table):
        unknown = joined.filter(pl.col("key").is_null())
        if len(unknown):
            raise InputError(f"{where}: has the {column} {unknown[column][0]!r}, which its table has not")
        joined = joined.with_columns(pl.col("key").alias(column))
    if table["domain"].null_count() < len(table):
        joined = joined.with_columns(pl.coalesce("_domain", "domain").alias("domain"))
    return joined.select(frame.columns)


def _is_json(entry: Entry) -> bool:
    return bool(entry["format"].get("kind") == "json")


def _decoded(content: bytes) -> str:
    """As UTF-8, or Latin-1 where it is none (MovieLens's movies.dat)."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _text(content: str, entry: Entry, column: str) -> Iterator[tuple[str, str | None, str | None]]:
    form = entry["format"]
    separator, columns = form.get("separator", ","), form["columns"]
    # Not splitlines, which also cuts at characters that a title may have, as U+0085.
    lines = content.replace("\r\n", "\n").split("\n")[1 if form.get("header", False) else 0 :]
    quoted = separator in (",", ";")
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, strict=True) if quoted else (
        line.split(separator) for line in lines
    )  # fmt: skip
    for row in rows:
        if not row or row == [""]:
            continue
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} fields, not {len(columns)}: {row!r}")
        cells = dict(zip(columns, row, strict=True))
        domain = cells.get("domain")
        if domain and "first_of" in entry:
            domain = domain.split(entry["first_of"])[0]
        yield cells[column], cells.get("key"), domain or None


def _json(content: str, entry: Entry) -> Iterator[tuple[str, str | None, str | None]]:
    for key, value in json.loads(content).items():
        if isinstance(value, list):
            name, number = value
            yield str(name), key, entry["domains"][number]
        else:
            yield str(value), key, None
