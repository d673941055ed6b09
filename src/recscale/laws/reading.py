"""Rows of a table that somebody else made: read, chosen, and told what of them is left out.

The index of a table is the number of a row in its file, from 1 behind the header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from recscale.errors import InputError
from recscale.laws.form import Array

PARQUET, LINES, EXCEL = (".parquet", ".pq"), (".jsonl", ".ndjson"), (".xlsx", ".xls")
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "%": 0.01}
NUMBER = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKmMbBgGtT%]?)")
COMMA = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*[kKmMbBgGtT%]?"  # a number with a decimal comma
DECIMAL = re.compile(r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*[kKmMbBgGtT%]?\s*)$")
CONDITION = re.compile(r'("[^"]*"|.+?)(!=|<=|>=|=|<|>)(.*)', re.S)
# Names of columns, letters alone, in which rows of one place should not differ.
COUNTS = (
    "n", "d", "tokens", "data", "samples", "targets", "steps", "epochs", "params", "parameters", "flops", "c",
    "datafraction", "dseen",
)  # fmt: skip
DATA = (
    "d",
    "tokens",
    "data",
    "samples",
    "targets",
    "datafraction",
    "dseen",
)  # of COUNTS, what is learnt from
NOTHING = ("", "-", "none", "null", "nan", "diverged", "failed", "crashed")  # cells of runs without a number
RATES = ("lr", "learningrate", "peaklr", "maxlr", "baselr", "peaklearningrate")


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A table, and what is to be said of it: rows that are the same in every column count once.

    CSV (separated by commas, tabs or semicolons, then with decimal commas), JSON lines, Parquet or Excel.
    Raises InputError, one line, for anything else.
    """
    kind = "Parquet" if path.suffix in PARQUET else "JSON lines" if path.suffix in LINES else "CSV"
    try:
        if path.suffix in EXCEL:
            frame = pd.read_excel(path)
        elif kind == "Parquet":
            frame = pd.read_parquet(path)
        elif kind == "JSON lines":
            frame = pd.read_json(path, lines=True)
        else:
            how = _dialect(path)
            frame = pd.read_csv(path, **how)
            if how["decimal"] == ",":  # also in columns with text, which pandas leaves as they are
                frame = frame.map(lambda cell: DECIMAL.sub(r"\1.\2", cell) if isinstance(cell, str) else cell)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except ImportError:
        raise InputError(
            f"{path}: is an Excel file: pip install openpyxl (of .xls xlrd), or save it as CSV"
        ) from None
    except (ValueError, OSError, KeyError, BadZipFile) as error:  # also pandas' and pyarrow's own
        raise InputError(f"{path}: is not {kind}: {' '.join(str(error).split())[:100]}") from error
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    same = frame.astype(str).duplicated()
    note = f"left out, the same as another row in every column: {_rows(int(same.sum()))}"
    return frame[~same], [note] if same.any() else []


def _dialect(path: Path) -> dict[str, Any]:
    """How a text table is separated, by its first line, and its decimal sign, by the others."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
        rows = file.read(2**16)
    separator = "\t" if "\t" in head.strip() else max(",;", key=head.count)
    comma = separator == ";" and re.search(rf"(^|;)\s*\"?\s*{COMMA}\s*\"?\s*(;|$)", rows, re.M) is not None
    return {"sep": separator, "decimal": "," if comma else ".", "encoding": "utf-8-sig"}


def where(frame: pd.DataFrame, conditions: str | None, path: Path) -> pd.DataFrame:
    """The rows that meet all conditions: COL=VALUE (a|b: one of them), !=, <, <=, > or >=, by commas.

    Raises InputError for what is no condition, for a column that is not there, and where no row is left.
    """
    for text in split(conditions or "", ","):
        found = CONDITION.fullmatch(text.strip())
        if found is None:
            raise InputError(f"--where {text}: is not COLUMN=VALUE, or with != < <= > >=")
        column, sign, value = found[1].strip().strip('"'), found[2], found[3].strip()
        if column not in frame:
            raise InputError(f"{path}: has no column {column}; it has {_columns(frame)}")
        cells = frame[column]
        if sign in ("=", "!="):
            wanted = [one.strip().strip('"') for one in value.split("|")]
            same = cells.astype(str).isin(wanted)
            as_numbers = {number for one in wanted if not np.isnan(number := _number(one))}
            if as_numbers:
                same |= cells.map(_number).isin(as_numbers)
            good = same if sign == "=" else ~same
        else:
            limit = _number(value)
            if np.isnan(limit):
                raise InputError(f"--where {text}: {value} is not a number")
            plain = cells.map(_number)
            good = {"<": plain < limit, "<=": plain <= limit, ">": plain > limit, ">=": plain >= limit}[sign]
        if not good.any():
            known = ", ".join(map(str, cells.unique()[:10]))
            raise InputError(f"{path}: no row has {column}{sign}{value}; there is {known}")
        frame = frame[good]
    return frame


def usable(frame: pd.DataFrame, columns: Sequence[str], path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows that have all of `columns`, and a line for what is left out: crashed runs have no size."""
    notes = []
    for column in dict.fromkeys(columns):
        if column not in frame:
            raise InputError(f"{path}: has no column {column}; it has {_columns(frame)}")
        blank = frame[column].isna() | frame[column].astype(str).str.strip().str.lower().isin(NOTHING)
        if blank.all():
            raise InputError(f"{path}: no row has a {column}")
        if blank.any():
            notes.append(f"left out, without {column}: {_rows(int(blank.sum()))}")
        frame = frame[~blank]
    return frame, notes


def lowest(
    frame: pd.DataFrame, of: str, x: Sequence[str], y: str, path: Path, highest: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Of the rows of each place in x that differ in the column `of`, that of the lowest or highest y."""
    for column in (of, y):
        if column not in frame:
            raise InputError(f"{path}: has no column {column}; it has {_columns(frame)}")
    ordered = frame.assign(_y=frame[y].map(_number)).sort_values("_y", kind="stable", ascending=not highest)
    best = ordered.drop_duplicates(list(x))
    left, end = len(frame) - len(best), "highest" if highest else "lowest"
    return frame.loc[best.index.sort_values()], [
        f"left out, not the {end} {y} of {of} at their place: {_rows(left)}"
    ]


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def cautions(frame: pd.DataFrame, x: Sequence[str], y: str, run: str | None) -> list[str]:
    """What a reader may have overlooked: rows of one place that differ in something else than a seed."""
    lines = []
    groups = frame.groupby(list(x), sort=False)
    for column in frame.columns:
        cells = frame[column]
        if column in (*x, y, run):
            continue
        if not pd.api.types.is_numeric_dtype(cells) and cells.map(_number).isna().any():
            continue
        words = {re.sub("[^a-z]", "", str(column).lower()), *re.split("[^a-z]+", str(column).lower())}
        differs = int((groups[column].nunique() > 1).sum())
        if differs and words & set(RATES):
            lines.append(
                f"warning: rows of one place differ in {column} and are taken for seeds; --lowest-of "
                f"{column} keeps the best of each"
            )
        elif differs and words & set(COUNTS):
            lines.append(f"warning: rows of one place differ in {column}, which the law does not know")
        elif len(x) == 1 and words & set(DATA) and cells.nunique() > 1:
            lines.append(f"warning: runs differ in {column}, which a law of {x[0]} alone does not know")
    return lines


def numbers(frame: pd.DataFrame, column: str, path: Path, positive: bool) -> Array:
    """A column as numbers: also 10M, 1.25B, 15.78 % and 10,000,000.

    Raises InputError naming the first row that is none (or is not positive).
    """
    if column not in frame:
        raise InputError(f"{path}: has no column {column}; it has {_columns(frame)}")
    cells = frame[column]
    values = (cells if pd.api.types.is_numeric_dtype(cells) else cells.map(_number)).to_numpy(np.float64)
    bad = ~(np.isfinite(values) & (values > 0)) if positive else np.isnan(values) & cells.notna()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        kind = "a positive number" if positive else "a number"
        raise InputError(f"{path}: row {frame.index[row]}: {column} is {cells.iloc[row]!s}, not {kind}")
    return np.asarray(values)


def units(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """A line for each column whose numbers are written with a unit, with one of them as it was read."""
    notes = []
    for column in dict.fromkeys(columns):
        cells = [one for one in frame[column] if isinstance(one, str)]
        odd = [one for one in cells if (found := NUMBER.fullmatch(one.strip())) and (found[2] or "," in one)]
        if odd:
            notes.append(f"{column}: {odd[0]} is read as {_number(odd[0]):g}")
    return notes


def _number(cell: Any) -> float:
    """A cell as a number; nan for what is none."""
    if not isinstance(cell, str):
        try:
            return float(cell)
        except (TypeError, ValueError):
            return np.nan
    found = NUMBER.fullmatch(cell.strip())
    if found is None or not found[1].strip("+-"):
        return np.nan
    try:
        return float(found[1].replace(",", "")) * UNITS[found[2].lower()]
    except ValueError:
        return np.nan


def split(text: str, sign: str) -> list[str]:
    """Parts between a sign, but for signs inside double quotes; none of an empty text."""
    return re.findall(rf'(?:"[^"]*"|[^{sign}"])+', text)


def _columns(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns[:30]))
