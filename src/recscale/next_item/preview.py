"""What preparing a log would do, told in seconds from its first rows."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recscale.data import formats, interactions
from recscale.data.interactions import BLOCK, Chunk, Log
from recscale.errors import InputError
from recscale.next_item.prepare import prepare

HEAD = 2**23  # bytes of text that are looked at
FIRST = 3  # interactions that are shown


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


def preview(path: Path, name: str, dataset: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Say how `path` would be read and what of it would be kept, by the filters of `dataset`.

    `dataset` is an entry of config/datasets.yaml, whose first source's format is taken, or empty: then the
    format is guessed. Raises InputError where preparing would stop.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    own = dict(dataset.get("sources", [{}])[0])
    source: dict[str, Any] = {"name": path.name, "files": [{"file": str(path)}]}
    if "format" in own:
        source["format"] = own["format"]
    else:
        source["format"] = formats.guess(path, None)
        say(f"format, guessed: {formats.text(source['format'])}")
        if isinstance(source["format"].get("columns"), list):
            say("  the file has no header: the user is taken to stand before the item; is that so?")
    log = interactions.log(name, [path], source, say)
    stream = log.chunks(HEAD)
    chunk = next(stream)
    whole = next(stream, None) is None
    _describe(chunk, log, whole, say)
    filters = {key: value for key, value in dataset.items() if key not in ("sources", "expect")}
    with tempfile.TemporaryDirectory() as folder:
        stats = prepare(Head(name, [path], source, [chunk]), filters, Path(folder))
    _outcome(stats, whole, say)
    if not dataset:
        entry = {"sources": [source | {"files": [{"file": str(path.resolve())}]}]}
        say("entry for config/datasets.yaml:")
        say(f"{name}: {json.dumps(entry)}")


def _describe(chunk: Chunk, log: Log, whole: bool, say: Callable[[str], None]) -> None:
    frame = chunk.frame
    part = "all" if whole else f"the first of about {log.bytes() / 1e6:,.0f} MB"
    say(f"rows looked at: {chunk.rows:,} ({part})")
    for row in frame.head(FIRST).with_columns(pl.from_epoch("timestamp", "us")).iter_rows(named=True):
        shown = {key: value for key, value in row.items() if value is not None}
        say("  " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    times = frame["timestamp"].drop_nulls()
    if len(times):
        first, last = (pl.Series([t]).cast(pl.Datetime("us"))[0] for t in (times.min(), times.max()))
        say(f"times: {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} (UTC)")
    elif len(frame):
        say("times: none; rows are taken in their order")
    for reason, count in chunk.rejected.items():
        first = chunk.examples.filter(pl.col("reason") == reason).head(1).rows(named=True)
        where = "".join(f", the first in line {row['line']}: {row['text']!r}" for row in first)
        say(f"no interactions: {count:,} {reason}{where}")


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
