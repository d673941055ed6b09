"""Files appear whole or not at all: every output is written beside its place, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recscale.errors import InputError

NO_SPACE = 2**14  # bytes
if TYPE_CHECKING:
    import pandas as pd

UMASK = os.umask(0)
os.umask(UMASK)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; renamed to it on success, removed on any error.

    Raises InputError when the disk is full, whatever the writer raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # a full disk may only tell here
            os.fchmod(file.fileno(), 0o666 & ~UMASK)  # some writers make files for one user only
        os.replace(part, path)
    except Exception as error:
        if _disk_is_full(error, path):
            raise InputError(f"{path}: no space left on device") from error
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Raises InputError when the disk of `folder` is full, whatever the writer raised."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if _disk_is_full(error, folder / "file"):
            raise InputError(f"{folder}: no space left on device") from error
        raise


def _disk_is_full(error: Exception, path: Path) -> bool:
    """Writers of other libraries say it in their own ways, or only that a write failed."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    return "No space left" in str(error) or shutil.disk_usage(path.parent).free < NO_SPACE


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, so that every reader can read it."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic(path) as part:
        part.write_text(text + "\n")


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that has these keys. Raises InputError naming the file and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply; remove it to have it made again") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}; remove it to have it made again") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise InputError(f"{path}: has no {', '.join(missing)}; remove it to have it made again")
    return content


def table_path(folder: Path, name: str) -> Path:
    """Where a table is: as Parquet in results, as CSV where it is published."""
    return folder / f"{name}.csv" if not (folder / f"{name}.parquet").exists() else folder / f"{name}.parquet"


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """A Parquet or CSV table that has these columns. Raises InputError like read_json."""
    import pandas as pd

    kind = "CSV" if path.suffix == ".csv" else "Parquet"
    try:
        table = pd.read_csv(path) if kind == "CSV" else pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: is not {kind}: {reason}; remove it to have it made again") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: has no {', '.join(missing)}; remove it to have it made again")
    return table


def write_table(table: pd.DataFrame, *paths: Path) -> None:
    """Write a table atomically to each of these paths: Parquet, or CSV where the name ends so."""
    for path in paths:
        with atomic(path) as part:
            table.to_csv(part, index=False) if path.suffix == ".csv" else table.to_parquet(part, index=False)


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
