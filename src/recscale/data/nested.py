"""Several interactions in one row: lists in columns, and objects inside JSON objects.

A path names what lies inside an object, as jq writes it: `time.$date` a key of a key, `events[].aid` the
same key of every object of a list, `items[]` every element of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recscale.data import parse
from recscale.data.parse import Bad, Block


def is_path(key: str) -> bool:
    """Whether a name of a column is the way to something inside an object."""
    return "." in key or "[]" in key


def paths(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The columns of an object by name and way: its own keys, then what is inside of them."""
    own: list[tuple[str, str]] = []
    inside: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inside += [(name, f"{key}[].{name}") for name in value[0]]
        elif isinstance(value, list):
            own.append((key, f"{key}[]"))
        elif isinstance(value, dict):
            way = _single(value)
            if way or "id" in value:
                own.append((key, f"{key}.{way or 'id'}"))
            plain = (name for name, one in value.items() if not isinstance(one, dict | list))
            inside += [(name, f"{key}.{name}") for name in plain if name not in (way, "id")]
        else:
            own.append((key, key))
    return own + inside


def _single(content: Any) -> str:
    """The way to the value of Mongo's extended JSON: $oid, $date, $date.$numberLong; nothing of any other."""
    if not isinstance(content, dict) or len(content) != 1:
        return ""
    (name, value), *_ = content.items()
    behind = _single(value)
    return (f"{name}.{behind}" if behind else name) if name.startswith("$") else ""


def objects(block: bytes, line: int, wanted: Mapping[str, str]) -> Block:
    """JSON lines by paths (ours: theirs), as text; a row an element of their lists."""
    block, lines, bad = parse.sound(block, line, returns=False)
    n = len(lines) + len(bad)
    rows: list[list[Any]] = []
    kept: list[int] = []
    blank = 0
    for number, one in zip(lines, parse.split_lines(block), strict=True):
        if not one.strip():
            blank += 1
            continue
        try:
            content = parse.json_object(one)
            rows.append([_at(content, path) for path in wanted.values()])
            kept.append(int(number))
        except (ValueError, RecursionError) as error:
            bad.append((int(number), parse.reason_of(error), parse.shown(one)))
    lists = [name for name, path in wanted.items() if "[]" in path]
    schema = {name: pl.List(pl.String) if name in lists else pl.String() for name in wanted}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return exploded(Block(frame, np.array(kept, np.int64), n, bad, blank=blank))


def _at(content: Any, path: str) -> Any:
    """What stands at a path, as text or a list of texts; null where there is nothing. Raises ValueError."""
    if isinstance(content, Mapping) and path in content:
        return parse.plain(content[path])
    before, brackets, behind = path.partition("[]")
    for key in before.split("."):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not brackets:
        return parse.plain(content)
    if content is not None and not isinstance(content, list):
        raise parse.NoKey("not_a_list_of_items")
    behind = behind.removeprefix(".")
    return [_at(one, behind) if behind else parse.plain(one) for one in content or []]


def split(table: Block, separator: str) -> Block:
    """Items (and ratings and times) that are lists as text, a row an element."""
    inside = [key for key in ("item", "rating", "timestamp") if key in table.frame.columns]
    one = pl.element().str.strip_chars(" '\"")  # as Python and NumPy write the elements of a list
    parts = (pl.col(key).str.strip_chars("[]() ").str.split(separator).list.eval(one) for key in inside)
    table = replace(table, frame=table.frame.with_columns(parts))
    return exploded(table)


def exploded(table: Block) -> Block:
    """A row an element of the columns that are lists; what is no list belongs to each of them.

    A row whose lists have unlike lengths is bad.
    """
    frame = table.frame
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if not lists:
        return table
    frame = frame.with_columns(
        pl.col(name).arr.to_list() for name in lists if isinstance(frame.schema[name], pl.Array)
    )
    if frame.schema["item"].is_nested() and len(lists) > 1:
        # A list that is missing as a whole is one of missing values: a log may have times for some users.
        n = pl.col("item").list.len()
        frame = frame.with_columns(
            pl.when(pl.col(name).is_null())
            .then(pl.lit(None).repeat_by(n))
            .otherwise(pl.col(name))
            .alias(name)
            for name in lists
            if name != "item"
        )
    unlike = [pl.col(name).list.len() != pl.col(lists[0]).list.len() for name in lists[1:]]
    odd = frame.select(pl.any_horizontal(*unlike, pl.lit(False)).alias("odd")).to_series().fill_null(False)
    if len(odd) == 1 < len(frame):  # of a lone literal
        odd = pl.repeat(odd[0], len(frame), dtype=pl.Boolean, eager=True)
    lines = np.asarray(table.line)
    bad: list[Bad] = [*table.bad]
    for place in np.flatnonzero(odd.to_numpy()):
        text = ", ".join(f"{name} {value}" for name, value in frame.row(int(place), named=True).items())
        bad.append((int(lines[place]), "lists_of_unlike_length", parse.shown(text)))
    frame = frame.with_columns(pl.Series("_line", lines)).filter(~odd)
    frame = frame.explode(lists, empty_as_null=True, keep_nulls=True)
    return replace(table, frame=frame.drop("_line"), line=frame["_line"].to_numpy(), bad=bad)
