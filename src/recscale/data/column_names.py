"""Names by which the columns of a log are known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recscale.errors import InputError

# Lower case, letters and digits only; in order of preference: keys before names, whole times before days.
NAMES = {
    "user": (
        "userid", "uid", "reviewerid", "customerid", "visitorid", "memberid", "accountid", "clientid",
        "authorid", "user", "customer", "author", "username", "sessionid", "session", "who",
    ),
    "item": (
        "itemid", "iid", "parentasin", "asin", "movieid", "productid", "sku", "articleid", "trackid",
        "songid", "bookid", "isbn", "businessid", "venueid", "newsid", "videoid", "gameid", "aid", "item",
        "movie", "product", "stockcode", "article", "what",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "timems", "timestampms", "eventtimestamp", "timestamps", "time", "ts",
        "unixtime", "datetime", "eventtime", "timestring", "createdat", "at", "tdat", "when", "date",
        "orderdate", "purchasedate", "invoicedate", "eventdate", "dateadded", "day", "reviewtime",
    ),
    "rating": ("rating", "overall", "score", "stars", "ratings", "preference", "rate"),
    "domain": ("domain",),
}  # fmt: skip
# Columns of a day, and of a time of day beside it.
DAYS = ("date", "day", "orderdate", "purchasedate", "invoicedate", "eventdate")
TIMES_OF_DAY = ("time", "hour", "hourmin", "clock", "minute", "timeofday", "ordertime", "eventtime")


def letters(name: str) -> str:
    """A column's name without case, signs and RecBole's type."""
    return re.sub("[^a-z0-9]", "", re.sub(":[a-z_]+$", "", name.lower()))


def plain(name: str) -> str:
    """The same without what says that it holds lists."""
    word = letters(name)
    listed = re.sub("^(sequence|seq|list|history|hist)|(sequence|seq|list|history|hist)$", "", word)
    known = {one for names in NAMES.values() for one in names}
    return next((one for one in (word, listed, listed.removesuffix("s")) if one in known), word)


def named(columns: Sequence[str], name: str, form: Mapping[str, Any], lists: set[str]) -> dict[str, str]:
    """Our names to theirs; `lists`: those that hold lists.

    Raises InputError where one that is needed is unknown.
    """
    by_word = {plain(one): one for one in reversed(columns)}
    found = {ours: next((by_word[n] for n in names if n in by_word), None) for ours, names in NAMES.items()}
    known = {ours: theirs for ours, theirs in found.items() if theirs is not None}
    needed = ["user", "item"] if known.get("item") in lists else ["user", "item", "timestamp"]
    missing = [ours for ours in needed if ours not in known]
    if missing:
        raise InputError(unknown(missing[0], columns, known, form, name))
    return known


def unknown(
    ours: str, columns: Sequence[str], known: Mapping[str, str], form: Mapping[str, Any], name: str
) -> str:
    """What is missing, with an entry to fill in."""
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    entry = dict(form) | {"columns": {key: known.get(key, "?") for key in ("user", "item", "timestamp")}}
    order = ", or say time_unit: none where the rows of each user are in order of time"
    return (
        f"{name}: no column is known as {ours}; its columns: {listed}; name it in format.columns"
        f"{order if ours == 'timestamp' else ''}: format: {json.dumps(entry)}"
    )
