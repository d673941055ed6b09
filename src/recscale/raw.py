"""Raw files as streams of bytes: plain, gzip, or a member of a zip archive, never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from recscale.errors import InputError

BROKEN = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
LONGEST_LINE = 2**24  # bytes; no interaction is as long, a file without line ends is


@contextmanager
def opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The bytes of a file or archive member, unpacked where it is gzip, as a stream.

    Raises InputError naming file and member for what is damaged, and for an archive that has a member
    outside of itself. A member that unpacks to more than the archive says ends in its checksum.
    """
    name = f"{path}: {member}" if member else str(path)
    try:
        if member is None:
            with path.open("rb") as file:
                yield _unpacked(file)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(_safe(archive, member, path)) as file:
                yield _unpacked(file)
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name}: is not a readable interaction log: {reason}") from error


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """Gzip is known by its first bytes, whatever the file is called."""
    head = io.BufferedReader(file, 2**20)  # type: ignore[type-var]
    if head.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=head), 2**20)
    return head


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
        if isinstance(getattr(stream, "raw", None), gzip.GzipFile):
            return None
    if member is None:
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(member).file_size


def blocks(stream: IO[bytes], size: int, name: str) -> Iterator[bytes]:
    """About `size` bytes at a time, whole lines each; the last may lack its line end.

    Raises InputError for what is no UTF-8 text by its first bytes, and for a line above LONGEST_LINE.
    """
    kept: list[bytes] = []
    piece = _text(stream.read(size), name)
    while piece:
        following = stream.read(size)
        cut = piece.rfind(b"\n") + 1 if following else len(piece)
        if cut:
            yield b"".join([*kept, piece[:cut]])
            kept = []
        if cut < len(piece):
            kept.append(piece[cut:])
        if sum(map(len, kept)) > LONGEST_LINE:
            raise InputError(f"{name}: has a line of more than {LONGEST_LINE >> 20} MiB: is it text?")
        piece = following


def _text(head: bytes, name: str) -> bytes:
    """The first bytes without a byte order mark. Raises InputError where they are no log in UTF-8."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{name}: is UTF-16; legal is UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{name}: is a zip archive; name the files in it (members)")
    if head[:4] == b"PAR1":
        raise InputError(f"{name}: is a Parquet file; legal is text (format.kind: parquet)")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{name}: is not a readable interaction log: it is a web page")
    return head.removeprefix(b"\xef\xbb\xbf")
