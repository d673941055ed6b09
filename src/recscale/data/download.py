"""Large files over HTTP: what has arrived is kept, and the next attempt goes on behind it.

The bytes lie in `.NAME.part` beside the file, with what the server said of that version in
`.NAME.part.json`; the name itself appears only when the file is whole. requests and urllib3 repeat
a request, but not the half of a body that is missing; so the one loop here counts both.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3 import Retry
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError

from recscale.errors import InputError

TIMEOUT = (5, 60)  # seconds to connect, and without a byte
TRIES = 5  # in a row that bring nothing new
TRIES_UNREACHED = 2  # where not even a connection comes about: a machine without internet should not wait
BACKOFF = 1.0  # seconds before the second try; doubles
LONGEST_WAIT = 300.0  # seconds; a server that asks for more counts as not available
REPORT = 30.0  # seconds between lines where there is no terminal
AGAIN = (429, 500, 502, 503, 504)
Say = Callable[[str], None]


class Unavailable(Exception):
    """The file could not be had from there; the message says why in a few words."""


class _Again(Exception):
    """An attempt failed in a way that the next one may not."""

    def __init__(self, reason: str, tries: int = TRIES, wait: float | None = None) -> None:
        super().__init__(reason)
        self.tries, self.wait = tries, wait


class _Stale(_Again):
    """What is kept does not fit what the server has now: the next attempt begins at zero."""


def download(url: str, path: Path, say: Say, check: Callable[[Path], str]) -> str:
    """Put the whole file at `path`, once `check` has accepted it under its temporary name.

    Returns what `check` returns. Raises Unavailable, or what `check` raises (then nothing is kept);
    InputError when the disk is full or another process is downloading the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    state = part.with_name(f"{part.name}.json")
    try:
        with _alone(part, path) as out:
            try:
                _until_whole(url, out, state, say)
            except Unavailable:
                if not part.stat().st_size:
                    part.unlink()
                    state.unlink(missing_ok=True)
                raise
            os.fsync(out.fileno())  # a full disk may only tell here
            try:
                found = check(part)
            except Exception:
                part.unlink()
                raise
            finally:
                state.unlink(missing_ok=True)
            os.replace(part, path)
            return found
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{path}: no space left on device; {part} keeps what has arrived, start again to go on"
            ) from error
        raise


@contextmanager
def _alone(part: Path, path: Path) -> Iterator[IO[bytes]]:
    """The open part, held by this process only as long as it is open."""
    with part.open("ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is downloading it") from None
        except OSError:  # a file system without locks
            pass
        if not part.exists() or not os.path.samestat(part.stat(), os.fstat(out.fileno())):
            raise InputError(f"{path}: another process has just downloaded it; start again")
        yield out


def _until_whole(url: str, out: IO[bytes], state: Path, say: Say) -> None:
    failures, most = 0, out.tell()
    while True:
        try:
            return _attempt(url, out, state, say)
        except _Again as error:
            failures = 1 if out.tell() > most else failures + 1  # a long file may break off often
            most = max(most, out.tell())
            if failures >= error.tries:
                raise Unavailable(f"{error} ({failures} tries)") from error
            wait = error.wait
            if wait is None:
                wait = BACKOFF * 2 ** (failures - 1) * random.uniform(1, 1.5)  # not all at the same time
            if wait > LONGEST_WAIT:
                raise Unavailable(f"{error} and asks to wait {wait:.0f} s") from error
            say(f"{url}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)


def _attempt(url: str, out: IO[bytes], state: Path, say: Say) -> None:
    """Append what is missing. Raises _Again and Unavailable."""
    version = _version(state, url)
    if version is None:  # not known to be a part of what the server has
        out.truncate(0)
    have = out.seek(0, os.SEEK_END)
    headers: dict[str, str] = {
        "Accept-Encoding": "identity"
    }  # the bytes as they are: sizes and ranges count them
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
            first, total = _placed(reply, have)
            if first is None:
                return  # there was nothing missing
            if first == 0:
                out.truncate(0)
                out.seek(0)
                state.write_text(json.dumps({"url": url, "version": _validator(reply)}))
            _append(reply, out, first, total, url, say)
            if total is not None and out.tell() != total:
                raise _Again(f"{out.tell():,} bytes came, {total:,} were announced")
    except _Stale:
        out.truncate(0)
        state.unlink(missing_ok=True)
        raise
    except (requests.RequestException, HTTPError) as error:
        raise _explained(error, out.tell()) from error


def _placed(reply: requests.Response, have: int) -> tuple[int | None, int | None]:
    """From which byte the reply goes on (None: the part is whole) and how long the whole file is."""
    if reply.status_code in AGAIN:
        asked = reply.headers.get("Retry-After")
        try:
            wait = Retry(retry_after_max=10**9).parse_retry_after(asked) if asked else None
        except HTTPError:  # neither seconds nor a date
            wait = None
        raise _Again(f"the server answered {reply.status_code}", wait=wait)
    span = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$", reply.headers.get("Content-Range", ""))
    total = int(span[2]) if span and span[2] != "*" else None
    if have and reply.status_code == 416 and total == have:
        return None, total
    elsewhere = reply.status_code == 206 and (not span or span[1] != str(have))
    if elsewhere or (have and reply.status_code == 416):
        raise _Stale("the server has another version now")
    if reply.status_code not in (200, 206):
        raise Unavailable(f"the server answered {reply.status_code}")
    if reply.headers.get("Content-Type", "").startswith("text/html"):
        raise Unavailable("the server sent a web page instead of the file")
    if reply.status_code == 206:
        return have, total
    length = reply.headers.get("Content-Length")
    return 0, int(length) if length else None


def _append(
    reply: requests.Response, out: IO[bytes], first: int, total: int | None, url: str, say: Say
) -> None:
    """Write the body behind what is there; a bar on a terminal, now and then a line elsewhere."""
    name, terminal = url.rsplit("/", 1)[-1], sys.stderr.isatty()
    size = f"{total / 1e6:,.1f} MB" if total is not None else "unknown size"
    if not terminal:
        say(f"{url}: {size}" + (f", going on behind {first / 1e6:,.1f} MB" if first else ""))
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    said = time.monotonic()
    with Progress(*columns, disable=not terminal) as bar:
        task = bar.add_task(name, total=total, completed=first)
        try:
            # not iter_content: it would unpack a .gz that the server labels as packed for the way
            for chunk in reply.raw.stream(2**20, decode_content=False):
                if not out.tell() and chunk.lstrip().startswith(b"<"):
                    raise Unavailable("the server sent a web page instead of the file")
                out.write(chunk)
                bar.update(task, advance=len(chunk))
                if not terminal and time.monotonic() - said > REPORT:
                    said = time.monotonic()
                    say(f"{name}: {out.tell() / 1e6:,.1f} MB of {size}")
        finally:
            out.flush()


def _explained(error: Exception, have: int) -> Exception:
    """_Again or Unavailable with a few words; requests nests several layers of one message."""
    if isinstance(error, requests.exceptions.SSLError):
        return Unavailable("could not be reached: its certificate is not trusted here")
    if (
        isinstance(error, requests.RequestException)
        and error.args
        and isinstance(error.args[0], MaxRetryError)
    ):
        return _Again("could not be reached", TRIES_UNREACHED)
    lost = requests.ConnectionError, requests.exceptions.ChunkedEncodingError, HTTPError
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return _Again(f"timed out after {have:,} bytes")
    if isinstance(error, lost):
        return _Again(f"the connection broke off after {have:,} bytes")
    return Unavailable(" ".join(str(error).split())[:200])


def _version(state: Path, url: str) -> str | None:
    """What the server called the version that the part is of; None where that is not known."""
    try:
        known: Any = json.loads(state.read_text())
        return str(known["version"]) if known["url"] == url and known["version"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _validator(reply: requests.Response) -> str | None:
    """ETag, else date of the last change; weak ETags do not promise the same bytes."""
    tag: str | None = reply.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified")
