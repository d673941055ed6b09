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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pyarrow.parquet

from recscale.data import column_names, headerless, nested, raw, tables, times
from recscale.errors import InputError

HEAD = 2**16  # bytes that are looked at
LONGEST_RECORD = 64  # lines
SAMPLE = 200  # rows that are
MANY = 2000  # times
SEPARATORS = ("::", "\t", ",", ";", "|", " ")
PYTHON = (
    'python -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]" '
    "< FILE > NEW.jsonl"
)
Form = dict[str, Any]


def guess(path: Path, member: str | None) -> Form:
    """The `format` of a file or archive member. Raises InputError saying what could not be guessed."""
    form = _written(path, member)
    for joined in _with_clock(form):
        try:
            return joined | time_of(path, member, joined, joined)
        except InputError:
            continue  # the clock is none, or in another form: the column of times alone may do
    return form | time_of(path, member, form, form)


def _with_clock(form: Form) -> Iterator[Form]:
    """The format with a day and a time of day, which stand in columns of their own, as one time."""
    columns, beside = form.get("columns"), form.pop("beside", [])
    if not isinstance(columns, dict) or "timestamp" not in columns:
        return
    days = [one for one in [columns["timestamp"], *beside] if column_names.letters(one) in column_names.DAYS]
    clocks = [
        one
        for one in [columns["timestamp"], *beside]
        if column_names.letters(one) in column_names.TIMES_OF_DAY
    ]
    if days and clocks and columns["timestamp"] in (*days, *clocks):
        yield form | {"columns": columns | {"timestamp": [days[0], clocks[0]]}}


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
    known = {key: others[key] for key in ("time_unit", "time_format") if key in others}
    try:
        block = next(tables.tables(path, member, name, raw_times, HEAD), None)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: is not a readable interaction log: {reason}") from error
    if block is None or block.frame.is_empty():
        return known
    if isinstance(block.frame.schema["timestamp"], pl.Date | pl.Datetime):
        return {}
    values = block.frame["timestamp"].head(MANY).to_list()
    if "time_format" in known and others is not form and times.fits(values, known):
        return known  # day and month may be told apart in the file before alone
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
    bad = sum("\ufffd" in line for line in content.split("\n"))
    if 10 * bad > content.count("\n") + 1:
        raise InputError(f"{name}: is not text in UTF-8 (iconv -f LATIN1 -t UTF-8 < FILE > NEW)")
    lines = [line for line in content.replace("\r\n", "\n").split("\n") if line.strip()]
    comment = _comment(lines)
    while comment and lines and lines[0].startswith(comment):
        del lines[0]
    if not lines:
        raise InputError(f"{name}: is not a readable interaction log: it has no interactions")
    if lines[0].lstrip().startswith("{"):
        return _json(lines[:SAMPLE], name)
    if lines[0].lstrip().startswith("["):
        raise InputError(
            f"{name}: is a JSON array; legal are JSON lines, an object a line (jq -c '.[]' FILE > NEW)"
        )
    form = _text(lines, name)
    return form if comment in (None, "sep=") else form | {"comment": comment}


def _comment(lines: list[str]) -> str | None:
    """How the lines at the head begin that are no rows: with a sign and a blank, or a sign and a header."""
    first = lines[0] if lines else ""
    if first.startswith("sep="):
        return "sep="
    for sign in ("#", "%"):
        if first.startswith(sign):
            known = {one for names in column_names.NAMES.values() for one in names}
            words = [column_names.plain(one) for one in re.split(r"[,;|\t ]", first[1:]) if one]
            if first[1:2] in (" ", "\t", sign, ""):
                return sign + first[1:2]
            return sign if any(word in known for word in words) else None
    return None


def _json(lines: list[str], name: str) -> Form:
    content: dict[str, Any] = {}  # of each key the first value that is something
    for k, line in enumerate(lines):
        try:
            found = json.loads(line)
        except ValueError:
            if k == 0:
                _refuse_literal(line, name)
                return {"kind": "sequences"}  # an object over several lines
            continue  # is told with its line, as a row
        if isinstance(found, dict):
            content |= {key: value for key, value in found.items() if content.get(key) in (None, [], {}, "")}
    known = {
        ours
        for ours, names in column_names.NAMES.items()
        if any(column_names.plain(key) in names for key in content)
    }
    if content and all(isinstance(value, list) for value in content.values()):
        if {"user", "item"} <= known:
            raise InputError(
                f'{name}: is an object of columns; legal are JSON lines: python -c "import pandas; '
                "pandas.read_json('FILE').to_json('NEW.jsonl', orient='records', lines=True)\""
            )
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
    lists -= {one.name for one in schema if pyarrow.types.is_struct(one.type)}
    return _with_columns(schema.names, name, {"kind": "parquet"}, lists)


def _with_columns(columns: Sequence[str], name: str, form: Form, lists: set[str]) -> Form:
    """The format with its columns by name. Items that are a list are in order where no column is a time."""
    known = column_names.named(columns, name, form, lists)
    beside = [one for one in columns if one not in known.values()]
    return (
        form | {"columns": known, "beside": beside} | ({} if "timestamp" in known else {"time_unit": "none"})
    )


# --- text -------------------------------------------------------------------------------------------


def _text(lines: list[str], name: str) -> Form:
    lines = _records(lines)
    found = [line.strip(" ") for line in lines[:SAMPLE]]
    counts = {sep: [line.count(sep) for line in found] for sep in SEPARATORS}
    some = [sep for sep in SEPARATORS if min(counts[sep]) > 0]
    regular = [sep for sep in some if len(set(counts[sep])) == 1]
    histories = _histories(found, some, regular, name)
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
    known = {one for names in column_names.NAMES.values() for one in names}
    is_row = any(times.is_number(one) or times.are_times([one]) for one in head)
    if any(times.are_times([one]) for one in head) or (
        not any(column_names.plain(one) in known for one in head) and (is_row or len(rows) == 1)
    ):
        return form | headerless.placed(rows, form, name)
    if len(rows) > 1 and all(len(row) == len(head) + 1 and row[-1] for row in rows[1:]):
        raise InputError(
            f"{name}: its rows have one field more than its header, as R writes them with row.names: give "
            "the first column a name in the header"
        )
    form["header"] = True
    lists = {
        one
        for one in head
        if column_names.plain(one) != column_names.letters(one) and column_names.plain(one) in known
    }
    form = _with_columns(head, name, form, lists)
    at = head.index(form["columns"]["item"])
    if form["columns"]["item"] in lists:
        values = [row[at] for row in rows[1:] if at < len(row)]
        inside = next((sep for sep in (",", "|", ";", " ") if any(sep in one for one in values)), None)
        form |= {"list_separator": inside} if inside else {}
    if "timestamp" not in form["columns"] and "list_separator" not in form:
        raise InputError(column_names.unknown("timestamp", head, form["columns"], form, name))
    return form


def _records(lines: list[str]) -> list[str]:
    """Lines, those joined that are one row because a quoted text goes on in the next; else as they are."""
    if not any("," in line or ";" in line for line in lines[:1]):
        return lines
    made: list[str] = []
    begun = ""
    for line in lines:
        begun = f"{begun}\n{line}" if begun else line
        if begun.count('"') % 2 == 0:
            made.append(begun)
            begun = ""
        elif begun.count("\n") > LONGEST_RECORD:
            return lines  # a quote that means nothing
    return made or lines


def _histories(found: list[str], some: list[str], regular: list[str], name: str) -> Form | None:
    """Lines of a user and all of its items; None where they are something else."""
    if set(some) == {" ", "|"} and not regular and all("|" in word for word in found[0].split()[1:]):
        return {"kind": "sequences", "time_separator": "|"}
    words = [line.split() for line in found]
    if some == [" "]:
        if any("  " in line for line in found) and len({len(row) for row in words}) == 1:
            last = [row[-1] for row in words[1:]]
            if times.are_times(last) or column_names.plain(words[0][0]) in column_names.NAMES["user"]:
                raise InputError(f"{name}: its columns are aligned by blanks; tr -s ' ' < FILE > NEW")
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
    texts = [one for one in found[0].split(separator) if not times.is_number(one)]
    whole = all(len(one) > 1 and one[0] == one[-1] == '"' for one in texts)
    return {"quote": "double"} if texts and whole else {}


def _split(found: list[str], separator: str, quote: str) -> list[list[str]]:
    if len(separator) == 2 or quote == "none":
        return [line.split(separator) for line in found]
    escape = "\\" if quote == "backslash" else None
    try:
        return [
            row
            for row in csv.reader(found, delimiter=separator, escapechar=escape, skipinitialspace=True)
            if row
        ]
    except csv.Error:
        return [line.split(separator) for line in found]
