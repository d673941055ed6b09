"""Raw interaction logs: files and archive members in, checked interactions out, a chunk at a time.

An interaction: user and item (text), rating (null where there is none), timestamp (microseconds since
1970; null where the log has an order only), domain (text, or null). A row that is none is counted by
reason, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from recscale.data import formats, raw, side_tables, tables, times
from recscale.data.rows import COLUMNS, REJECTED, Choice, Chunk, checked
from recscale.errors import InputError

__all__ = ["BLOCK", "COLUMNS", "REJECTED", "Chunk", "Log", "log"]

Entry = Mapping[str, Any]

TIME_KEYS = ("time_unit", "time_format")
BLOCK = 2**25  # bytes of text parsed at a time


@dataclass(frozen=True)
class Member:
    """A file or archive member of a log: its path, its entry, how it is written.

    judged: whether its unit of time was guessed; part: whether it is a file of a folder, which may be empty.
    """

    path: Path
    member: str | None
    file: Entry
    form: Entry
    judged: bool
    part: bool

    @property
    def place(self) -> tuple[Path, str | None]:
        """Where it is."""
        return self.path, self.member

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.path}: {self.member}" if self.member else str(self.path)


@dataclass(frozen=True)
class Log:
    """The raw log of a dataset: a source of config/datasets.yaml with its `format`, where its files lie.

    `paths` are those of side_tables.parts: the logs, then the tables beside them. `guessed`: the format was
    guessed, and the unit of time of each file is.
    """

    name: str
    paths: Sequence[Path]
    source: Entry
    choice: Choice = field(default_factory=Choice)
    guessed: bool = False
    whole: bool = True  # whether `chunks` gives all there is

    def members(self) -> Iterator[Member]:
        """Every file or archive member, in order. Raises InputError."""
        for path, file in zip(self.paths, self.source["files"], strict=False):
            for one, member in raw.members(path, file.get("members")):
                form = dict(self.source["format"])
                own = {key: file[key] for key in TIME_KEYS if key in file}
                if len(own) > 1:
                    raise InputError(f"{path}: has time_unit and time_format; legal is one of them")
                if own or self.guessed:
                    form = {k: v for k, v in form.items() if k not in TIME_KEYS} | own
                if self.guessed and not own:
                    form |= formats.time_of(one, member, form, self.source["format"])
                yield Member(one, member, file, form, self.guessed and not own, one != path)

    def bytes(self) -> int:
        """About how many bytes of text it has; what is compressed is taken to be a tenth of it."""
        found = 0
        for path, file in zip(self.paths, self.source["files"], strict=False):
            for one, member in raw.members(path, file.get("members")):
                parquet = self.source["format"].get("kind") == "parquet"
                plain = None if parquet else raw.size(one, member)
                found += 10 * one.stat().st_size if plain is None else plain
        return found

    @property
    def short(self) -> bool:
        """Whether a row is but an item, not a line."""
        form = self.source["format"]
        return bool(form.get("kind") == "sequences" or "list_separator" in form)

    def chunks(self, block: int = BLOCK) -> Iterator[Chunk]:
        """Interactions of all files, one after the other, in row order, about `block` bytes at a time.

        How large the chunks are changes nothing else. Raises InputError naming file and member for what is
        no such log and for a file with another number of `rows`.
        """
        total = 0
        for of in self.members():
            rows = 0
            for chunk in self.chunks_of(of, block):
                rows += chunk.rows
                yield chunk
            if "rows" in of.file and rows != of.file["rows"]:
                raise InputError(f"{of.name}: has {rows} rows, the file has {of.file['rows']}")
            total += rows
            if not (rows or of.part):
                raise InputError(f"{of.name}: is not a readable interaction log: it has no interactions")
        if not total:
            raise InputError(f"{self.paths[0]}: is not a readable interaction log: it has no interactions")

    def chunks_of(self, of: Member, block: int) -> Iterator[Chunk]:
        """Those of one member. Raises InputError for what is no such log."""
        parts = (part["file"] for part in side_tables.parts(self.source))
        beside_at = dict(zip(parts, self.paths, strict=True))
        prefix = pl.col("user").str.strip_prefix(self.source.get("strip_user_prefix", ""))
        beside = {
            column: side_tables.read(beside_at[of.file[kind]["file"]], of.file[kind], column)
            for kind, column in (("items", "item"), ("users", "user"))
            if kind in of.file
        }
        try:
            for chunk in self._checked(of, block):
                if "strip_user_prefix" in self.source:
                    chunk = replace(chunk, frame=chunk.frame.with_columns(prefix))
                for column, table_of in beside.items():
                    chunk = replace(chunk, frame=side_tables.apply(chunk.frame, table_of, column, of.name))
                yield chunk
        except pl.exceptions.PolarsError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{of.name}: is not a readable interaction log: {reason}") from error

    def _checked(self, of: Member, block: int) -> Iterator[Chunk]:
        for table in tables.tables(of.path, of.member, of.name, of.form, block, self.choice.columns):
            not_chosen: dict[str, int] = {}
            values: dict[str, set[str]] = {}
            if self.choice.columns:
                table, not_chosen, values = self.choice.apply(table)
            chunk = checked(
                table, of.form, of.name, of.file.get("domain"), of.judged and times.numeric(of.form)
            )
            yield replace(chunk, not_chosen=not_chosen, values=values)


def log(
    name: str, paths: Sequence[Path], source: Entry, say: Callable[[str], None], dataset: Entry | None = None
) -> Log:
    """The log of a source; where it names no `format`, that of its first file is guessed, and said.

    `dataset`: the entry of the source, of which `keep` and `drop` are used. Raises InputError.
    """
    chosen = dataset or {}
    choice = Choice(chosen.get("keep", {}), chosen.get("drop", {}))
    guessed = "format" not in source
    if guessed:
        inside = raw.members(paths[0], source["files"][0].get("members"))
        filled = (one for one in inside if one[1] or one[0].stat().st_size)  # Spark writes empty parts
        first, member = next(filled, (paths[0], None))
        form = formats.guess(first, member)
        say(f"{name}: format guessed from {first}: {formats.text(form)}")
        source = {**source, "format": form}
    _check_format(source["format"], f"{name}: {source.get('name', paths[0])}: format")
    found = Log(name, paths, source, choice, guessed)
    unused = tables.unused(*next(iter(found.members())).place, source["format"], choice.columns)
    if unused:
        say(f"{name}: columns that are not used: {', '.join(unused)}")
    if guessed:
        for of in found.members():
            unlike = {key: of.form.get(key) for key in ("time_unit", "time_format") if key in of.form}
            if unlike != {key: form[key] for key in ("time_unit", "time_format") if key in form}:
                other = formats.text(unlike or {"time_unit": "s"})
                say(f"{name}: times of {of.name} are in another unit: {other}")
    return found


def _check_format(form: Entry, where: str) -> None:
    """Raise InputError for a format whose keys do not go together."""
    kind, columns = form.get("kind", "text"), form.get("columns")
    if "time_format" in form:
        if "time_unit" in form:
            raise InputError(f"{where}: has time_unit and time_format; legal is one of them")
        times.check_format(form["time_format"], f"{where}: time_format")
    if kind == "sequences":
        if columns is not None:
            raise InputError(f"{where}: columns: sequences have none")
        return
    needed = ["user", "item"] + (["timestamp"] if form.get("time_unit") != "none" else [])
    missing = [key for key in needed if key not in (columns or ())]
    if missing:
        rest = "; time_unit: none if the rows of a user are in order" if missing == ["timestamp"] else ""
        raise InputError(f"{where}: columns: {', '.join(missing)} is missing{rest}")
    if isinstance(columns, Mapping):
        if kind == "text" and (not form.get("header", False) or form.get("separator") == "::"):
            raise InputError(f"{where}: columns by name need a header and a separator of one character")
    elif kind != "text":
        raise InputError(f"{where}: columns: {kind} needs a mapping of user, item, ... to its names")
    for key in COLUMNS:
        if isinstance(columns, list) and columns.count(key) > 1 and key != "timestamp":
            raise InputError(f"{where}: columns: {key} is there more than once")
