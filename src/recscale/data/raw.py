"""Raw files as streams of bytes: plain, gzip, or a member of a zip archive, never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from recscale.errors import InputError

# What zipfile, gzip and zlib raise for damaged bytes; OSError and ValueError for places that are none.
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
    struct.error, OSError,
)  # fmt: skip
LONGEST_LINE = 2**24  # bytes; no interaction is as long, a file without line ends is


class Stream:
    """Bytes of a file or archive member, unpacked; damage ends in InputError."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file: Any = io.BufferedReader(file, 2**20)
        self.packed = self.peek(2) == b"\x1f\x8b"  # gzip, whatever the file is called
        if self.packed:
            self._file = io.BufferedReader(gzip.GzipFile(fileobj=self._file), 2**20)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer than `size` only at the end."""
        with told(self.name):
            content: bytes = self._file.read(size)
            return content

    def peek(self, size: int) -> bytes:
        """The next bytes, which the next read gives again."""
        with told(self.name):
            content: bytes = self._file.peek(size)
            return content[:size]


@contextmanager
def told(name: str) -> Iterator[None]:
    """Errors of damaged bytes end in one line that names the file."""
    try:
        yield
    except BROKEN as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of the file system
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name}: is not a readable interaction log: {reason}") from error


@contextmanager
def opened(path: Path, member: str | None) -> Iterator[Stream]:
    """The bytes of a file or archive member as a stream.

    Raises InputError naming file and member for what is damaged, and for an archive that has a member
    outside of itself. A member that unpacks to more than the archive says ends in its checksum.
    """
    name = f"{path}: {member}" if member else str(path)
    with ExitStack() as stack:
        with told(name):
            if member is None:
                file: IO[bytes] = stack.enter_context(path.open("rb"))
            else:
                archive = stack.enter_context(zipfile.ZipFile(path))
                file = stack.enter_context(archive.open(_safe(archive, member, path)))
        yield Stream(file, name)


def _safe(archive: zipfile.ZipFile, member: str, path: Path) -> zipfile.ZipInfo:
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in "".join(parts.parts[:1]):
            raise InputError(f"{path}: has a member {info.filename!r}: legal are paths inside the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{path}: has a link {info.filename!r}: legal are files")
    try:
        return archive.getinfo(member)
    except KeyError:
        found = ", ".join(archive.namelist()[:5])
        raise InputError(f"{path}: has no member {member}; it has {found or 'none'}") from None


def size(path: Path, member: str | None) -> int | None:
    """Unpacked bytes; None where the file does not say (gzip)."""
    with opened(path, member) as stream:
        if stream.packed:
            return None
    if member is None:
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(member).file_size


def blocks(stream: Stream, size: int) -> Iterator[bytes]:
    """About `size` bytes at a time, whole lines each; the last may lack its line end.

    Raises InputError for what is no UTF-8 text by its first bytes, and for a line above LONGEST_LINE.
    """
    kept: list[bytes] = []
    _check_head(stream)
    piece = stream.read(size)
    while piece:
        following = stream.read(size)
        cut = piece.rfind(b"\n") + 1 if following else len(piece)
        if cut:
            yield b"".join([*kept, piece[:cut]])
            kept = []
        if cut < len(piece):
            kept.append(piece[cut:])
        if sum(map(len, kept)) > LONGEST_LINE:
            raise InputError(f"{stream.name}: has a line of more than {LONGEST_LINE >> 20} MiB: is it text?")
        piece = following


def _check_head(stream: Stream) -> None:
    """Pass over a byte order mark. Raises InputError where the first bytes are no log in UTF-8."""
    head, name = stream.peek(64), stream.name
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{name}: is UTF-16; legal is UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{name}: is a zip archive; name the files in it (members)")
    if head[:4] == b"PAR1":
        raise InputError(f"{name}: is a Parquet file; legal is text (format.kind: parquet)")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{name}: is not a readable interaction log: it is a web page")
    if head.startswith(b"\xef\xbb\xbf"):
        stream.read(3)
