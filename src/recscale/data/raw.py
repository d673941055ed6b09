"""Raw files as streams of bytes: plain, compressed, or a member of a zip archive, never unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow

from recscale.errors import InputError

# What zipfile and the readers of what is compressed raise for damaged bytes; OSError and ValueError for
# places that are none.
BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError, struct.error, OSError,
)  # fmt: skip
LONGEST_LINE = 2**24  # bytes; no interaction is as long, a file without line ends is

# By the first bytes, whatever a file is called.
UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"),
}
PANDAS = "python -c \"import pandas; pandas.read_{}('FILE').to_parquet('NEW.parquet')\""
# What is not read, by its first bytes: what it is, and what turns it into something that is.
FOREIGN = {
    b"ARROW1": ("a Feather file", PANDAS.format("feather")),
    b"FEA1": ("a Feather file", PANDAS.format("feather")),
    b"SQLite format 3": ("an SQLite database", "sqlite3 -header -csv FILE 'select * from TABLE' > NEW.csv"),
    b"\xd0\xcf\x11\xe0": ("an Excel file", PANDAS.format("excel")),
    b"\x89HDF": ("an HDF5 file", PANDAS.format("hdf")),
    b"ORC": ("an ORC file", PANDAS.format("orc")),
    b"Obj\x01": ("an Avro file", "duckdb -c \"copy (from read_avro('FILE')) to 'NEW.parquet'\""),
    b"\x93NUMPY": (
        "a NumPy file", "python -c \"import numpy; numpy.savetxt('NEW.csv', numpy.load('FILE'), '%s', ',')\""
    ),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x FILE"),
    b"Rar!": ("a RAR archive", "unrar x FILE"),
    b"\x5d\x00\x00": ("an LZMA file", "unlzma < FILE > NEW"),
    b"\x04\x22\x4d\x18": ("an LZ4 file", "lz4 -d FILE NEW"),
    **{b"\x80" + bytes([k]): ("a Python pickle", PANDAS.format("pickle")) for k in range(2, 6)},
}  # fmt: skip


class Stream:
    """Bytes of a file or archive member, unpacked; damage ends in InputError."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file: Any = io.BufferedReader(file, 2**20)
        unpack = next((by for start, by in UNPACK.items() if self.peek(8).startswith(start)), None)
        self.packed = unpack is not None
        if unpack is not None:
            self._file = io.BufferedReader(unpack(self._file), 2**20)

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


def members(path: Path, named: Sequence[str] | None) -> Iterator[tuple[Path, str | None]]:
    """The files, or archive members, that an entry means: those named, those of a folder, or itself.

    A folder's are taken in the order of their paths; those that begin with . or _ are no logs (as Spark's
    _SUCCESS). An archive with one file means that file. Raises InputError naming what is in any other.
    """
    if path.is_dir():
        found = files_of(path)
        if not found:
            raise InputError(f"{path}: is a folder without files")
        for one in found:
            yield from members(one, None)
        return
    if named is not None:
        yield from ((path, member) for member in named)
        return
    with told(str(path)), path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if not packed:
        yield path, None
        return
    with told(str(path)), zipfile.ZipFile(path) as archive:
        names = [one.filename for one in archive.infolist() if not one.is_dir()]
    inside = [one for one in names if not any(part[0] in "._" for part in PurePosixPath(one).parts)]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path}: is an Excel file, which is not read; {PANDAS.format('excel')}")
    if len(inside) != 1:
        listed = ", ".join(inside[:10]) + (", ..." if len(inside) > 10 else "")
        raise InputError(
            f"{path}: is a zip archive; name the files in it that are the log (members): {listed}"
        )
    yield path, inside[0]


def files_of(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, by path, without those that begin with . or _."""
    found = (one for one in folder.rglob("*") if one.is_file())
    return sorted(one for one in found if not any(p[0] in "._" for p in one.relative_to(folder).parts))


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files of a folder."""
    return sum(one.stat().st_size for one in files_of(path)) if path.is_dir() else path.stat().st_size


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
        raise InputError(f"{name}: is a zip archive inside of another file; unpack it")
    for start, (what, command) in FOREIGN.items():
        if head.startswith(start):
            raise InputError(f"{name}: is {what}, which is not read; {command}")
    if b"ustar" in stream.peek(512)[257:265]:
        raise InputError(f"{name}: is a tar archive, which is not read; tar -xf FILE")
    if head[:4] == b"PAR1":
        raise InputError(f"{name}: is a Parquet file; legal is text (format.kind: parquet)")
    lines = stream.peek(2**16)
    if lines.count(b"\r") > 1 and b"\n" not in lines:
        raise InputError(f"{name}: its lines end with carriage returns (tr '\\r' '\\n' < FILE > NEW)")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{name}: is not a readable interaction log: it is a web page")
    if head.startswith(b"\xef\xbb\xbf"):
        stream.read(3)
