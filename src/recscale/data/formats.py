"""How a log is written, guessed from its first lines: kind, separator, header, columns, unit of time.

A guess is printed and can be put into config/datasets.yaml as it is. The order of columns without a
header is a guess that little can confirm: the user is taken to stand before the item, unless the item
looks like an ASIN and the user like one of Amazon's reviewers.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from recscale.data import nested, raw, tables, times
from recscale.errors import InputError

HEAD = 2**16  # bytes that are looked at
SAMPLE = 200  # rows that are
SEPARATORS = ("::", "\t", ",", ";", "|", " ")
# Lower case, letters and digits only; in order of preference: keys before names, whole times before days.
NAMES = {
    "user": (
        "userid", "uid", "reviewerid", "customerid", "visitorid", "memberid", "accountid", "clientid",
        "authorid", "user", "customer", "author", "username", "sessionid", "session", "who",
    ),
    "item": (
        "itemid", "iid", "parentasin", "asin", "movieid", "productid", "sku", "articleid", "trackid",
        "songid", "bookid", "isbn", "businessid", "venueid", "newsid", "videoid", "gameid", "aid", "item",
        "movie", "product", "article", "what",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "timems", "timestampms", "eventtimestamp", "timestamps", "time", "ts",
        "unixtime", "datetime", "eventtime", "timestring", "createdat", "at", "tdat", "when", "date",
        "reviewtime",
    ),
    "rating": ("rating", "overall", "score", "stars", "ratings", "preference", "rate"),
    "domain": ("domain",),
}  # fmt: skip
ASIN, REVIEWER = re.compile("B0[0-9A-Z]+|[0-9]{9}[0-9X]"), re.compile("A[0-9A-Z]+")
PYTHON = (
    'python -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]" '
    "< FILE > NEW.jsonl"
)
Form = dict[str, Any]


def guess(path: Path, member: str | None) -> Form:
    """The `format` of a file or archive member. Raises InputError saying what could not be guessed."""
    form = _written(path, member)
    return form | time_of(path, member, form, form)


def text(form: Mapping[str, Any]) -> str:
    """As it would stand in config/datasets.yaml, on one line (JSON is YAML)."""
    return json.dumps(form)


def time_of(path: Path, member: str | None, form: Mapping[str, Any], others: Mapping[str, Any]) -> Form:
    """The time_unit or time_format of a file that is written as `form`, by its first rows.

    `others`: the format of the files before it, whose order of rows stands for times (time_unit: none) here
    too. Nothing where it has no times; {} for seconds since 1970. Raises InputError.
    """
    if others.get("time_unit") == "none":
        return {"time_unit": "none"}
    if form["kind"] == "sequences" and "time_separator" not in form:
        return {}
    name = f"{path}: {member}" if member else str(path)
    raw_times = {key: value for key, value in form.items() if key != "time_format"} | {"time_unit": "iso"}
    if form["kind"] == "sequences":
        del raw_times["time_unit"]
    block = next(tables.tables(path, member, name, raw_times, HEAD), None)
    if block is None or block.frame.schema["timestamp"].is_temporal():
        return {}
    values = block.frame["timestamp"].head(SAMPLE).to_list()
    if all(value is None or str(value).strip() in times.MISSING for value in values):
        raise InputError(
            f"{name}: its first rows have no times; say time_unit: none where the rows of each user are in "
            "order of time"
        )
    return times.guess(values, name)


def _written(path: Path, member: str | None) -> Form:
    """All of the format but the unit of time."""
    name = f"{path}: {member}" if member else str(path)
    with raw.opened(path, member) as stream:
        head: bytes = stream.read(HEAD)
    if head[:4] == b"PAR1":
        return _parquet(path, member, name)
    # Whole lines; what is no text is refused.
    head = next(raw.blocks(raw.Stream(io.BytesIO(head), name), HEAD), b"")
    content = head.decode("utf-8", "replace")
    lines = [line for line in content.replace("\r\n", "\n").split("\n") if line.strip()]
    comment = next((start for start in ("%", "#", "sep=") if lines and lines[0].startswith(start)), None)
    while comment and lines and lines[0].startswith(comment):
        del lines[0]
    if not lines:
        raise InputError(f"{name}: is not a readable interaction log: it has no interactions")
    if lines[0].lstrip().startswith("{"):
        return _json(lines[0], name)
    if lines[0].lstrip().startswith("["):
        raise InputError(
            f"{name}: is a JSON array; legal are JSON lines, an object a line (jq -c '.[]' FILE > NEW)"
        )
    form = _text(lines, name)
    return form if comment in (None, "sep=") else form | {"comment": comment}


def _letters(name: str) -> str:
    """A column's name without case, signs and RecBole's type."""
    return re.sub("[^a-z0-9]", "", re.sub(":[a-z_]+$", "", name.lower()))


def _plain(name: str) -> str:
    """The same without what says that it holds lists."""
    word = _letters(name)
    listed = re.sub("^(sequence|seq|list|history|hist)|(sequence|seq|list|history|hist)$", "", word)
    known = {one for names in NAMES.values() for one in names}
    return next((one for one in (word, listed, listed.removesuffix("s")) if one in known), word)


def _named(columns: Sequence[str], name: str, form: Mapping[str, Any], lists: set[str]) -> dict[str, str]:
    """Our names to theirs; `lists`: those that hold lists.

    Raises InputError where one that is needed is unknown.
    """
    plain = {_plain(one): one for one in reversed(columns)}
    found = {ours: next((plain[n] for n in names if n in plain), None) for ours, names in NAMES.items()}
    known = {ours: theirs for ours, theirs in found.items() if theirs is not None}
    needed = ["user", "item"] if known.get("item") in lists else ["user", "item", "timestamp"]
    unknown = [ours for ours in needed if ours not in known]
    if unknown:
        raise InputError(_unknown(unknown[0], columns, known, form, name))
    return known


def _unknown(
    ours: str, columns: Sequence[str], known: Mapping[str, str], form: Mapping[str, Any], name: str
) -> str:
    """What is missing, with an entry to fill in."""
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    entry = dict(form) | {"columns": {key: known.get(key, "?") for key in ("user", "item", "timestamp")}}
    order = ", or say time_unit: none where the rows of each user are in order of time"
    return (
        f"{name}: no column is known as {ours}; its columns: {listed}; name it in format.columns"
        f"{order if ours == 'timestamp' else ''}: format: {text(entry)}"
    )


def _json(line: str, name: str) -> Form:
    try:
        content = json.loads(line)
    except ValueError:
        _refuse_literal(line, name)
        content = None  # an object over several lines
    if not isinstance(content, dict) or (content and all(isinstance(v, list) for v in content.values())):
        return {"kind": "sequences"}
    paths = dict(reversed(nested.paths(content)))
    lists = {one for one, path in paths.items() if "[]" in path}
    form = _with_columns(list(reversed(paths)), name, {"kind": "jsonl"}, lists)
    return form | {"columns": {ours: paths[theirs] for ours, theirs in form["columns"].items()}}


def _refuse_literal(line: str, name: str) -> None:
    """Raise InputError for a dict of Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python about what is no Python
            found = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return
    if isinstance(found, dict):
        raise InputError(f"{name}: its lines are dicts of Python, not JSON; {PYTHON}")


def _parquet(path: Path, member: str | None, name: str) -> Form:
    if member:
        raise InputError(f"{name}: Parquet inside an archive is not guessed; name its format")
    with raw.told(name), pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
    lists = {one.name for one in schema if pyarrow.types.is_nested(one.type)}
    return _with_columns(schema.names, name, {"kind": "parquet"}, lists)


def _with_columns(columns: Sequence[str], name: str, form: Form, lists: set[str]) -> Form:
    """The format with its columns by name. Items that are a list are in order where no column is a time."""
    known = _named(columns, name, form, lists)
    return form | {"columns": known} | ({} if "timestamp" in known else {"time_unit": "none"})


# --- text -------------------------------------------------------------------------------------------


def _text(lines: list[str], name: str) -> Form:
    found = [line.strip(" ") for line in lines[:SAMPLE]]
    counts = {sep: [line.count(sep) for line in found] for sep in SEPARATORS}
    some = [sep for sep in SEPARATORS if min(counts[sep]) > 0]
    regular = [sep for sep in some if len(set(counts[sep])) == 1]
    histories = _histories(found, some, regular)
    if histories is not None:
        return histories
    if not some:
        raise InputError(f"{name}: no separator was found among {', '.join(map(repr, SEPARATORS))}")
    separator = (regular or some)[0]
    if separator == "," and ";" in regular and counts[";"][0] > counts[","][0]:  # decimals with a comma
        separator = ";"
    form: Form = {"kind": "text", "separator": separator, **_quote(found, separator)}
    rows = _split([line.strip(" ") for line in lines], separator, tables.quote_of(form))
    head = [one.strip() for one in rows[0]]
    known = {one for names in NAMES.values() for one in names}
    is_row = any(_is_number(one) or times.are_times([one]) for one in head)
    if not any(_plain(one) in known for one in head) and (is_row or len(rows) == 1):
        return form | _placed(rows, form, name)
    if len(rows) > 1 and all(len(row) == len(head) + 1 for row in rows[1:]):
        raise InputError(
            f"{name}: its rows have one field more than its header, as R writes them with row.names: give "
            "the first column a name in the header"
        )
    form["header"] = True
    lists = {one for one in head if _plain(one) != _letters(one) and _plain(one) in known}
    form = _with_columns(head, name, form, lists)
    at = head.index(form["columns"]["item"])
    if form["columns"]["item"] in lists:
        values = [row[at] for row in rows[1:] if at < len(row)]
        inside = next((sep for sep in (",", "|", ";", " ") if any(sep in one for one in values)), None)
        form |= {"list_separator": inside} if inside else {}
    if "timestamp" not in form["columns"] and "list_separator" not in form:
        raise InputError(_unknown("timestamp", head, form["columns"], form, name))
    return form


def _histories(found: list[str], some: list[str], regular: list[str]) -> Form | None:
    """Lines of a user and all of its items; None where they are something else."""
    if set(some) == {" ", "|"} and not regular and all("|" in word for word in found[0].split()[1:]):
        return {"kind": "sequences", "time_separator": "|"}
    words = [line.split() for line in found]
    if some == [" "]:
        widths = sorted(map(len, words))
        usual = [row for row in words if len(row) == widths[len(widths) // 2]]
        columns = list(zip(*usual, strict=True))
        if 10 * len(usual) >= 9 * len(words) and any(times.are_times(values) for values in columns):
            return None
        return {"kind": "sequences"} if regular != [" "] or widths[0] > 4 else None
    ids = all(any(c.isdigit() for c in one) for row in words[1:] for one in row)
    if "\t" in regular and found[0].count("\t") == 1 and ids:
        items = [line.partition("\t")[2].split() for line in found]
        return {"kind": "sequences"} if sum(len(one) > 1 for one in items) * 2 > len(items) else None
    if some == [","] and not regular:
        fields = [line.split(",") for line in found]
        ids = all(any(c.isdigit() for c in one) and '"' not in one for row in fields for one in row)
        timed = any(times.are_times(values) for values in zip(*fields, strict=False))
        return {"kind": "sequences", "separator": ","} if ids and not timed else None
    return None


def _quote(found: list[str], separator: str) -> dict[str, str]:
    """How fields are quoted, where it is not as usual with this separator."""
    if any('\\"' in line for line in found):
        widths = {
            quote: {len(row) for row in _split(found, separator, quote)} for quote in ("double", "backslash")
        }
        if len(widths["backslash"]) == 1:
            return {"quote": "backslash"}
    if separator in (",", ";") or len(separator) > 1:
        return {}
    texts = [one for one in found[0].split(separator) if not _is_number(one)]
    whole = all(len(one) > 1 and one[0] == one[-1] == '"' for one in texts)
    return {"quote": "double"} if texts and whole else {}


def _split(found: list[str], separator: str, quote: str) -> list[list[str]]:
    if len(separator) == 2 or quote == "none":
        return [line.split(separator) for line in found]
    escape = "\\" if quote == "backslash" else None
    try:
        return [row for row in csv.reader(found, delimiter=separator, escapechar=escape) if row]
    except csv.Error:
        return [line.split(separator) for line in found]


def _placed(rows: list[list[str]], form: Form, name: str) -> dict[str, Any]:
    """Without a header: the time by its size, the rating as the last of small numbers, then user, item."""
    width = min(len(row) for row in rows)
    values = [[row[k].strip() for row in rows] for k in range(width)]
    timed = [k for k in range(width) if times.are_times(values[k][:SAMPLE])]
    if not timed:
        return _pairs(values, form, name)
    texts = [k for k in timed if not _is_number(values[k][0])]  # a large number may be an id
    time = (texts or timed)[-1]
    left = [k for k in range(width) if k != time]
    rating, category = None, False
    if len(left) > 2:
        rating = max((k for k in left if _is_rating(values[k], form["separator"])), default=None)
        if rating is None and len(left) == 3:  # a category, most of which is a number
            rating = max((k for k in left if 2 * sum(map(_is_small, values[k])) > len(rows)), default=None)
            category = True
    keys = [k for k in left if k != rating]
    if len(keys) != 2:
        columns = ["?"] * width
        columns[time] = "timestamp"
        raise InputError(
            f"{name}: has no header and {width} columns: which are user and item cannot be told; name its "
            f"format: {text(form | {'columns': columns})}"
        )
    if all(map(ASIN.fullmatch, values[keys[0]])) and all(map(REVIEWER.fullmatch, values[keys[1]])):
        keys.reverse()  # Amazon 2018
    names = {keys[0]: "user", keys[1]: "item", time: "timestamp"}
    if rating is not None:
        # What is always 0 is no rating, but a category of which the others come later.
        names[rating] = "unused" if category or set(values[rating]) == {"0"} else "rating"
    return {"columns": [names[k] for k in range(width)]}


def _is_rating(values: Sequence[str], separator: str) -> bool:
    """Whether a column is of small numbers, but for those that are missing."""
    numbers = [
        one.replace(",", ".") if separator != "," else one for one in values if one not in times.MISSING
    ]
    return bool(numbers) and all(map(_is_small, numbers))


def _is_small(value: str) -> bool:
    return _is_number(value) and abs(float(value)) <= 100


def _pairs(values: list[list[str]], form: Form, name: str) -> dict[str, Any]:
    """User and item alone: in order where the rows of each user stand together. Raises InputError."""
    if len(values) != 2:
        columns = ["?"] * len(values)
        raise InputError(
            f"{name}: has no header and no column of times; name its format: "
            f"{text(form | {'columns': columns})}; with time_unit: none where the rows of each user are in "
            "order of time"
        )
    found: Form = {"columns": ["user", "item"], "time_unit": "none"}
    users = values[0]
    begins = [one for k, one in enumerate(users) if k == 0 or one != users[k - 1]]
    if len(set(begins)) < len(begins) or len(begins) == len(users):
        raise InputError(
            f"{name}: has no header and no column of times; where the rows of each user are in order of "
            f"time: format: {text(form | found)}"
        )
    return found


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
