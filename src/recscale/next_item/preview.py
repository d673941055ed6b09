"""What preparing a log would do, told in seconds from its first rows."""

from __future__ import annotations

import datetime
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from recscale.data import interactions
from recscale.data.interactions import BLOCK, TIME_KEYS, Chunk, Log, Member
from recscale.data.rows import NOT_OF_OUR_DAYS, REJECTED
from recscale.errors import InputError
from recscale.next_item.prepare import prepare

HEAD = 2**23  # bytes of text that are looked at, of all files together
FILES = 20  # that are looked at
FIRST = 3  # interactions that are shown
MOST = 0.01  # share of all rows that one user may have without a word
# Keys that often stand for nobody or nothing, in lower case.
NOBODY = (
    "-", "--", "?", "0", "-1", "unknown", "anonymous", "anon", "guest", "missing", "nil", "empty",
    "(not set)", "(none)", "n.a.", "none", "deleted", "[deleted]",
)  # fmt: skip


@dataclass(frozen=True)
class Head(Log):
    """A log that has been read so far and no further."""

    seen: Sequence[Chunk] = ()

    def bytes(self) -> int:
        """One partition will do."""
        return 0

    def chunks(self, block: int = BLOCK) -> Iterator[Chunk]:
        """Those that were seen."""
        yield from self.seen


def preview(paths: Sequence[Path], name: str, dataset: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Say how files or folders would be read as one log, and what the filters of `dataset` would keep.

    `dataset` is an entry of config/datasets.yaml, of which the source with a file of that name, or the
    first, says how it is written; or empty: then the format is guessed. Raises InputError where preparing
    would stop.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
    own = _source(paths[0], dataset.get("sources", [{}]))
    listed = [{"file": str(path)} | _own(path, own.get("files", [])) for path in paths]
    source: dict[str, Any] = {"name": paths[0].name, "files": listed}
    source |= {key: own[key] for key in ("format", "strip_user_prefix") if key in own}
    log = interactions.log(name, paths, source, say, dataset)
    if isinstance(log.source["format"].get("columns"), list) and "format" not in own:
        say("  the file has no header: which column is the user, and which the item, is a guess; is it so?")
    found = list(log.members())
    seen: list[Chunk] = []
    whole = len(found) <= FILES
    for member in found[:FILES]:
        stream = log.chunks_of(member, HEAD // min(FILES, len(found)))
        seen += list(islice(stream, 1))
        whole = whole and next(stream, None) is None
    if not any(chunk.rows for chunk in seen):
        raise InputError(f"{paths[0]}: is not a readable interaction log: it has no interactions")
    _describe(seen, log, whole, len(found), say)
    filters = {key: value for key, value in dataset.items() if key not in ("sources", "expect")}
    with tempfile.TemporaryDirectory() as folder:
        head = Head(name, paths, log.source, log.choice, whole=whole, seen=seen)
        stats = prepare(head, filters, Path(folder))
    _outcome(stats, whole, say)
    if not dataset:
        entry: dict[str, Any] = {"sources": [dict(log.source) | {"files": _files(found, paths, log)}]}
        if any(
            NOT_OF_OUR_DAYS in chunk.rejected for chunk in seen
        ):  # a unit that is stated is taken as it is
            entry |= {"after": "1990-01-01", "before": f"{datetime.date.today() + datetime.timedelta(2)}"}
        # 2024 is a number to YAML, and off is false.
        key = name if yaml.safe_load(name) == name else json.dumps(name)
        say("entry for config/datasets.yaml:")
        say(f"{key}: {json.dumps(entry)}")


def _files(members: Sequence[Member], paths: Sequence[Path], log: Log) -> list[dict[str, str]]:
    """The files of the entry; those whose times are in another unit than the first's say so.

    A folder of which not all files are in one unit is given file by file.
    """
    usual = {key: log.source["format"][key] for key in TIME_KEYS if key in log.source["format"]}
    made = []
    for path in paths:
        inside = [one for one in members if one.path == path or path in one.path.parents]
        units = [{key: one.form[key] for key in TIME_KEYS if key in one.form} for one in inside]
        if all(unit == units[0] for unit in units):
            inside, units = [replace(inside[0], path=path)], units[:1]
        for one, unit in zip(inside, units, strict=True):
            own = {} if unit == usual else unit or {"time_unit": "s"}
            made.append({"file": str(one.path.resolve())} | own)
    return made


def _source(path: Path, sources: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The source that has a file of this name, else the first."""
    return next((one for one in sources if path.name in _names(one)), sources[0])


def _names(source: Mapping[str, Any]) -> set[str]:
    return {Path(file["file"]).name for file in source.get("files", [])}


def _own(path: Path, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the dataset's entry says of a file: of the one with its name, or of the first."""
    named = [file for file in files if Path(file["file"]).name == path.name]
    file = next(iter([*named, *files]), {})
    return {key: file[key] for key in ("members", *TIME_KEYS, "domain") if key in file}


def _describe(seen: Sequence[Chunk], log: Log, whole: bool, n: int, say: Callable[[str], None]) -> None:
    frame = pl.concat([chunk.frame for chunk in seen])
    part = "all" if whole else f"the first of about {log.bytes() / 1e6:,.0f} MB"
    rows = sum(chunk.rows for chunk in seen)
    say(f"rows looked at: {rows:,} ({part}{f' in {n:,} files' if n > 1 else ''})")
    for row in frame.head(FIRST).with_columns(pl.from_epoch("timestamp", "us")).iter_rows(named=True):
        shown = {key: value for key, value in row.items() if value is not None}
        say("  " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    times = frame["timestamp"].drop_nulls()
    if len(times):
        first, last = (pl.Series([t]).cast(pl.Datetime("us"))[0] for t in (times.min(), times.max()))
        say(f"times: {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} (UTC)")
    elif len(frame):
        say("times: none; rows are taken in their order")
    examples = pl.concat([pl.DataFrame(schema=REJECTED), *(chunk.examples for chunk in seen)])
    for reason in dict.fromkeys(reason for chunk in seen for reason in chunk.rejected):
        count = sum(chunk.rejected.get(reason, 0) for chunk in seen)
        example = examples.filter(pl.col("reason") == reason).head(1).rows(named=True)
        where = "".join(f", the first in line {row['line']}: {row['text']!r}" for row in example)
        say(f"no interactions: {count:,} {reason}{where}")
    for line in hints(frame):
        say(f"look at this: {line}")


def hints(frame: pl.DataFrame) -> Iterator[str]:
    """What in a log looks like a mistake, or like something to leave out, a line each."""
    users = frame["user"].value_counts(sort=True)
    if MOST * len(users) > 1:  # with fewer users each has its share
        for user, count in users.filter(pl.col("count") > MOST * len(frame)).head(FIRST).iter_rows():
            yield f"user {user!r} has {count:,} of {len(frame):,} rows: a bot, a test, or nobody?"
    now = datetime.datetime.now(datetime.UTC).timestamp() * 1e6
    late = int((frame["timestamp"] > now).sum())
    if late:
        yield f"{late:,} times are in the future"
    for column in ("user", "item"):
        rounded = frame.filter(pl.col(column).str.contains(r"^[0-9]\.[0-9]+[eE]\+[0-9]+$"))[column]
        if len(rounded):
            yield f"{column} {rounded[0]!r} and the like have lost digits, as a spreadsheet shows numbers"
        nobody = frame.filter(pl.col(column).str.to_lowercase().is_in(NOBODY))
        for key, count in nobody[column].value_counts(sort=True).head(FIRST).iter_rows():
            yield f"{column} {key!r} in {count:,} rows: does it stand for none? (drop leaves such rows out)"


def _outcome(stats: Mapping[str, Any], whole: bool, say: Callable[[str], None]) -> None:
    counts, targets = stats["interactions"], stats["targets"]
    left_out = ", ".join(f"{n:,} {why}" for why, n in counts["left_out"].items() if n) or "none"
    say(f"would be left out: {left_out}")
    say(
        f"would be kept: {counts['kept']:,} interactions of {stats['users']['kept']:,} users and "
        f"{stats['items']['kept']:,} items: {targets['all']:,} targets, {targets['train']:,} of them train"
        + ("" if whole else "; of these first rows alone, where users and items are still incomplete")
    )


def name_of(path: Path) -> str:
    """A name for a dataset, from the file's."""
    return re.sub("[^a-z0-9]+", "-", path.name.split(".")[0].lower()).strip("-") or "my-log"
