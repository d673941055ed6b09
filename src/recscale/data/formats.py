"""How a log is written, guessed from its first lines: kind, separator, header, columns, unit of time.

A guess is printed and can be put into config/datasets.yaml as it is. The order of columns without a
header is a guess that nothing can confirm: the user is taken to stand before the item.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from recscale.data import raw
from recscale.errors import InputError

HEAD = 2**16  # bytes that are looked at
SEPARATORS = ("::", "\t", ",", ";", "|", " ")
# Lower case, letters and digits only; in order of preference.
NAMES = {
    "user": (
        "user", "userid", "uid", "username", "reviewerid", "customerid", "customer", "visitorid", "memberid",
        "accountid", "clientid", "sessionid", "session", "author", "authorid", "who",
    ),
    "item": (
        "item", "itemid", "iid", "asin", "parentasin", "movieid", "movie", "productid", "product", "sku",
        "articleid", "article", "trackid", "songid", "bookid", "isbn", "businessid", "venueid", "newsid",
        "videoid", "gameid", "what",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "time", "ts", "datetime", "date", "eventtime", "createdat", "at",
        "tdat", "when", "reviewtime", "unixtime",
    ),
    "rating": ("rating", "overall", "score", "stars", "ratings", "preference", "rate"),
    "domain": ("domain",),
}  # fmt: skip
UNITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))  # below: that unit, in our days
EARLIEST = 1e8  # seconds: 1973


def guess(path: Path, member: str | None) -> dict[str, Any]:
    """The `format` of a file or archive member. Raises InputError saying what could not be guessed."""
    name = f"{path}: {member}" if member else str(path)
    with raw.opened(path, member) as stream:
        head: bytes = stream.read(HEAD)
    if head[:4] == b"PAR1":
        return _parquet(path, member, name)
    head = next(
        raw.blocks(raw.Stream(io.BytesIO(head), name), HEAD), b""
    )  # whole lines; what is no text is refused
    content = head.decode("utf-8", "replace")
    found = [line for line in content.splitlines() if line.strip()][:200]
    if not found:
        raise InputError(f"{name}: is not a readable interaction log: it has no interactions")
    if content.lstrip().startswith("{"):
        return _json(found[0], name)
    if content.lstrip().startswith("["):
        raise InputError(f"{name}: is a JSON array; legal are JSON lines, an object a line")
    return _text(found, name)


def text(form: dict[str, Any]) -> str:
    """As it would stand in config/datasets.yaml, on one line (JSON is YAML)."""
    return json.dumps(form)


def _named(columns: Sequence[str], name: str) -> dict[str, str]:
    """Our names to theirs. Raises InputError where user or item has none that is known."""
    plain = {re.sub("[^a-z0-9]", "", re.sub(":[a-z_]+$", "", one.lower())): one for one in reversed(columns)}
    found = {ours: next((plain[n] for n in known if n in plain), None) for ours, known in NAMES.items()}
    for ours in ("user", "item"):
        if found[ours] is None:
            listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
            raise InputError(
                f"{name}: no column is known as {ours}; its columns: {listed}; name them in format.columns"
            )
    return {ours: theirs for ours, theirs in found.items() if theirs is not None}


def _json(line: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None  # an object over several lines
    if not isinstance(content, dict) or (content and all(isinstance(v, list) for v in content.values())):
        return {"kind": "sequences"}
    columns = _named(list(content), name)
    return {"kind": "jsonl", "columns": columns} | _unit([content.get(columns.get("timestamp"))], name)


def _parquet(path: Path, member: str | None, name: str) -> dict[str, Any]:
    if member:
        raise InputError(f"{name}: Parquet inside an archive is not guessed; name its format")
    with raw.told(name), pyarrow.parquet.ParquetFile(path) as file:
        columns = _named(file.schema_arrow.names, name)
        form = {"kind": "parquet", "columns": columns}
        time = columns.get("timestamp")
        if time and pyarrow.types.is_temporal(file.schema_arrow.field(time).type):
            return form
        sample = next(file.iter_batches(100, columns=[time]), None) if time else None
    return form | _unit(sample.column(0).to_pylist() if sample else [None], name)


def _text(found: list[str], name: str) -> dict[str, Any]:
    counts = {sep: [line.count(sep) for line in found] for sep in SEPARATORS}
    regular = [sep for sep in SEPARATORS if min(counts[sep]) > 0 and len(set(counts[sep])) == 1]
    some = [sep for sep in SEPARATORS if min(counts[sep]) > 0]
    if (some == [" "] and (regular != [" "] or counts[" "][0] > 3)) or (
        set(some) == {" ", "|"} and not regular and all("|" in word for word in found[0].split()[1:])
    ):
        timed = "|" in some
        return {"kind": "sequences"} | ({"time_separator": "|"} if timed else {})
    if not some:
        raise InputError(f"{name}: no separator was found among {', '.join(map(repr, SEPARATORS))}")
    separator = (regular or some)[0]
    rows = _split(found, separator)
    form: dict[str, Any] = {"kind": "text", "separator": separator}
    known = {name for names in NAMES.values() for name in names}
    words = [re.sub("[^a-z0-9]", "", re.sub(":[a-z_]+$", "", one.lower())) for one in rows[0]]
    if any(word in known for word in words) or not any(_is_number(one) for one in rows[0]):
        columns = _named([one.strip() for one in rows[0]], name)
        form |= {"header": True, "columns": columns}
        at = rows[0].index(columns["timestamp"]) if "timestamp" in columns else None
        return form | _unit([row[at] for row in rows[1:] if at is not None and at < len(row)], name)
    return form | _placed(rows, name)


def _split(found: list[str], separator: str) -> list[list[str]]:
    if len(separator) == 2:
        return [line.split(separator) for line in found]
    try:
        return [row for row in csv.reader(found, delimiter=separator) if row]
    except csv.Error:
        return [line.split(separator) for line in found]


def _placed(rows: list[list[str]], name: str) -> dict[str, Any]:
    """Without a header: the time by its size, the rating as the last of small numbers, then user, item."""
    width = min(len(row) for row in rows)
    values = [[row[k] for row in rows] for k in range(width)]
    times = [k for k in range(width) if all(_is_time(v) for v in values[k])]
    if not times:
        raise InputError(f"{name}: has no header and no column of times; name its format")
    texts = [k for k in times if not _is_number(values[k][0])]  # a large number may be an id
    time = (texts or times)[-1]
    left = [k for k in range(width) if k != time]
    rating = None
    if len(left) > 2:
        small = [k for k in left if all(_is_number(v) and abs(float(v)) <= 100 for v in values[k])]
        rating = max(small, default=None)
    keys = [k for k in left if k != rating]
    if len(keys) != 2:
        raise InputError(
            f"{name}: has no header and {width} columns: which are user and item cannot be told; "
            "name its format"
        )
    names = {keys[0]: "user", keys[1]: "item", time: "timestamp"}
    if rating is not None:
        names[rating] = "rating"
    return {"columns": [names[k] for k in range(width)]} | _unit([row[time] for row in rows], name)


def _unit(values: list[Any], name: str) -> dict[str, Any]:
    """The time_unit of a sample; nothing where it is seconds."""
    given = [value for value in values if value not in (None, "")]
    if not given:
        raise InputError(
            f"{name}: no column is known as timestamp; name it in format.columns, or say "
            "time_unit: none where the rows of each user are in order of time"
        )
    numbers = sorted(abs(float(value)) for value in given if _is_number(value))
    if 2 * len(numbers) < len(given):  # a few others may be NULL and the like
        return {"time_unit": "iso"}
    middle = numbers[len(numbers) // 2]
    unit = next((unit for limit, unit in UNITS if middle < limit), "ns")
    return {} if unit == "s" else {"time_unit": unit}


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_time(value: str) -> bool:
    if _is_number(value):
        return float(value) >= EARLIEST
    return re.match(r"\d{4}-\d\d-\d\d", value.strip()) is not None
