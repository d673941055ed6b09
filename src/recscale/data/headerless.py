"""Which column is which in text without a header: by its values, and by its place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recscale.data import times
from recscale.errors import InputError

SAMPLE = 200  # rows of which times are told by
FEW = 20  # values of a category
ASIN, REVIEWER = re.compile("B0[0-9A-Z]+|[0-9]{9}[0-9X]"), re.compile("A[0-9A-Z]+")


def placed(rows: list[list[str]], form: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Without a header: the time by its size, the rating as the last of small numbers, then user, item."""
    width = min(len(row) for row in rows)
    values = [[row[k].strip() for row in rows] for k in range(width)]
    timed = [k for k in range(width) if times.are_times(values[k][:SAMPLE])]
    if not timed:
        return _pairs(values, form, name)
    empty = [k for k in range(width) if not any(values[k])]  # behind a separator at the end of each row
    texts = [k for k in timed if not times.is_number(values[k][0])]  # a large number may be an id
    columns = ["?"] * width
    if len(texts or timed) == 1:
        columns[(texts or timed)[0]] = "timestamp"
    entry = json.dumps(dict(form) | {"columns": columns})
    if len(texts or timed) > 1:
        raise InputError(f"{name}: has no header and more than one column of times; name its format: {entry}")
    time = (texts or timed)[0]
    keys = [k for k in range(width) if k != time and k not in empty]
    third = keys.pop() if len(keys) == 3 else None
    if len(keys) != 2 or (third is not None and not _is_minor(values[third], [values[k] for k in keys])):
        raise InputError(
            f"{name}: has no header and {width} columns: which are user and item cannot be told; name its "
            f"format: {entry}"
        )
    if all(map(ASIN.fullmatch, values[keys[0]])) and all(map(REVIEWER.fullmatch, values[keys[1]])):
        keys.reverse()  # Amazon 2018
    names = dict.fromkeys(range(width), "unused") | {keys[0]: "user", keys[1]: "item", time: "timestamp"}
    # What is always 0 is no rating, but a category of which the others come later.
    if third is not None and _is_rating(values[third], form["separator"]) and set(values[third]) != {"0"}:
        names[third] = "rating"
    return {"columns": [names[k] for k in range(width)]}


def _is_minor(values: Sequence[str], keys: Sequence[Sequence[str]]) -> bool:
    """Whether a column behind the keys is a rating or a category, not a key: small, or of few values."""
    kinds = len(set(values))
    if 2 * sum(map(_is_small, values)) > len(values):
        return kinds <= len(set(keys[1]))
    return kinds <= FEW and all(kinds < len(set(one)) for one in keys)


def _is_rating(values: Sequence[str], separator: str) -> bool:
    """Whether a column is of small numbers, but for those that are missing."""
    numbers = [
        one.replace(",", ".") if separator != "," else one for one in values if one not in times.MISSING
    ]
    return bool(numbers) and all(map(_is_small, numbers))


def _is_small(value: str) -> bool:
    return times.is_number(value) and abs(float(value)) <= 100


def _pairs(values: list[list[str]], form: Mapping[str, Any], name: str) -> dict[str, Any]:
    """User and item alone: in order where the rows of each user stand together. Raises InputError."""
    if len(values) != 2:
        columns = ["?"] * len(values)
        raise InputError(
            f"{name}: has no header and no column of times; name its format: "
            f"{json.dumps(dict(form) | {'columns': columns})}; with time_unit: none where the rows of each "
            "user are in order of time"
        )
    found: dict[str, Any] = {"columns": ["user", "item"], "time_unit": "none"}
    users = values[0]
    begins = [one for k, one in enumerate(users) if k == 0 or one != users[k - 1]]
    if len(set(begins)) < len(begins) or len(begins) == len(users):
        raise InputError(
            f"{name}: has no header and no column of times; where the rows of each user are in order of "
            f"time: format: {json.dumps(dict(form) | found)}"
        )
    return found
