"""What a study needs of this machine, and of the cluster around it: a line each, with the remedy."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from recscale.cluster.request import Limits
from recscale.cluster.slurm import command
from recscale.errors import InputError

WAIT = 60  # seconds for an allocation
CONNECT = 5.0  # seconds for a download's host
PACKAGES = ("torch", "snakemake", "snakemake-executor-plugin-slurm", "recscale")
DAY, MINUTE = 1440, 60


@dataclass(frozen=True)
class Check:
    """One line. `remedy` is empty where all is well."""

    name: str
    found: str
    remedy: str = ""

    def text(self) -> str:
        """As it is printed."""
        mark = "!!" if self.remedy else "ok"
        return f"{mark} {self.name}: {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


def checks(profile: Path, results: Path, raw: Path, entry: Mapping[str, Any]) -> Iterator[Check]:
    """All checks, those of SLURM where there is one. Raises InputError for a profile that cannot be read."""
    yield _versions()
    folder = _links(results)
    yield folder
    yield _downloads(raw, entry)
    if shutil.which("sbatch") is None:
        yield Check(
            "sbatch",
            "is not on this machine",
            "train here with `snakemake --cores N`; for a cluster run this on its login node",
        )
        return
    settings = _read(profile)
    default = _map(settings.get("default-resources"), f"{profile}: default-resources")
    rules = _map(settings.get("set-resources"), f"{profile}: set-resources")
    own = _map(rules.get("train"), f"{profile}: set-resources: train")
    Limits.of(own)  # says what is wrong
    train = default | own
    alive, said = command("scontrol", "ping")
    yield Check("sbatch", "reachable" if alive else said, "" if alive else "the scheduler is away: try later")
    if not alive:
        return
    sacct, said = command("sacct", "-n", "-X")
    ways = "" if sacct else f"add `slurm-status-command: squeue` to {profile}"
    asks = settings.get("slurm-status-command") == "squeue"
    yield Check("accounting", "sacct answers" if sacct else said, "" if asks else ways)
    yield _account(train, profile)
    listed, said = command("sinfo", "-h", "-o", "%R|%l|%G")
    if listed:
        partitions = [line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2]
        yield _partition(partitions, train, profile)
    else:
        yield Check("partition", said, "no partition is known without it: try later")
    gpu, words = _gpus(train, profile)
    yield gpu
    if not folder.remedy:
        yield from _allocation(words, results)


def _map(content: Any, where: str) -> dict[str, Any]:
    """A map of the profile; lines that are all commented leave an empty one."""
    if not isinstance(content, dict | None):
        raise InputError(f"{where}: is not a map, name: value")
    return {key: value for key, value in (content or {}).items() if value is not None}


def _read(profile: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(profile.read_text()))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(
            f"{profile}: is not a profile of Snakemake: {' '.join(str(error).split())}"
        ) from error


def _versions() -> Check:
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lock = Path(__file__).resolve().parents[3] / "envs" / "lock.txt"
    pinned = dict(re.findall(r"^([\w-]+)==([^\s;]+)", lock.read_text(), re.M)) if lock.exists() else {}
    odd = [n for n in PACKAGES if n in pinned and pinned[n] != importlib.metadata.version(n).split("+")[0]]
    remedy = f"other versions of {', '.join(odd)} than {lock}: make install" if odd else ""
    return Check("versions", f"Python {platform.python_version()}, {found}", remedy)


def _links(results: Path) -> Check:
    """Whether files can be written, renamed and linked where results live; links are not needed."""
    one, other = (results / f".doctor-{uuid.uuid4().hex}" for _ in range(2))
    try:
        results.mkdir(parents=True, exist_ok=True)
        one.write_text("x")
        os.replace(one, other)
        try:
            os.link(other, one)
        except OSError:
            return Check(
                "results", f"{results.resolve()} can be written; it has no hard links, which will do"
            )
        return Check("results", f"{results.resolve()} can be written, renamed in and linked in")
    except OSError as error:
        return Check(
            "results", f"{results.resolve()}: {error.strerror}", "set results_dir in config/config.yaml"
        )
    finally:
        for path in (one, other):
            with suppress(OSError):
                path.unlink()


def _downloads(raw: Path, entry: Mapping[str, Any]) -> Check:
    """Whether the study's archive is there or its host answers."""
    for source in entry["sources"]:
        if all((raw / file["file"]).exists() for file in source["files"]):
            return Check("data", f"{source['name']} is in {raw}/")
    hosts = {urlsplit(f["url"]).hostname for s in entry["sources"] for f in s["files"] if "url" in f}
    for host in sorted(host for host in hosts if host):
        try:
            socket.create_connection((host, 443), CONNECT).close()
        except OSError:
            continue
        return Check("data", f"{host} answers")
    if any("pypi" in file for source in entry["sources"] for file in source["files"]):
        return Check("data", "its host does not answer from here; a package of pip has it too")
    return Check(
        "data",
        "its host does not answer from here",
        f"recscale fetch --list names the files: download them elsewhere and put them into {raw}/",
    )


def _account(train: Mapping[str, Any], profile: Path) -> Check:
    """Whether the account that pays is one of this user's, where the cluster tells them."""
    wished, user = train.get("slurm_account"), getpass.getuser()
    ask = ["sacctmgr", "-n", "-P", "list", "associations", f"user={user}", "format=account"]
    known, said = command(*ask)
    names = sorted(set(said.split())) if known else []
    if not names:
        who = f"{wished}, unchecked" if wished else "none is named"
        return Check("account", f"{who}: {'the cluster names none of ' + user if known else said}")
    of = ", ".join(names)
    if wished is None:
        return Check("account", f"your default one of {of}")
    if str(wished).lower() in names:  # SLURM keeps them in small letters
        return Check("account", f"{wished}, of {of}")
    return Check("account", f"{wished} is none of {user}'s", f"set slurm_account in {profile} to one of {of}")


def minutes(limit: str) -> float:
    """Minutes of a limit as sinfo prints it: infinite, 30:00, 4:00:00, 7-00:00:00."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", limit):
        return float("inf")
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours = parts if days or len(parts) == 3 else [0, *parts]
    hours += [0] * (3 - len(hours))
    return int(days or 0) * DAY + hours[0] * MINUTE + hours[1] + hours[2] / 60


def _partition(partitions: list[list[str]], train: Mapping[str, Any], profile: Path) -> Check:
    """`partitions`: name, limit of time, generic resources."""
    names = sorted({name for name, _, _ in partitions})
    name = train.get("slurm_partition")
    if name is None:
        return Check("partition", f"the default one of {', '.join(names)}")
    wished = str(name).split(",")  # SLURM takes the one that starts first
    odd = [name for name in wished if name not in names]
    if odd:
        remedy = f"set slurm_partition of train in {profile} to one of {', '.join(names)}"
        return Check("partition", f"there is no {', '.join(odd)}", remedy)
    longest = min(max(minutes(limit) for n, limit, _ in partitions if n == name) for name in wished)
    wanted = train.get("max_minutes", 0)
    if wanted > longest:
        return Check(
            "partition", f"{name}, up to {longest:.0f} minutes", f"set max_minutes in {profile} to that"
        )
    return Check("partition", f"{name}, of {', '.join(names)}")


def _gpus(train: Mapping[str, Any], profile: Path) -> tuple[Check, list[str]]:
    """Whether the job of a training would be accepted, and the words that ask for it."""
    words = [
        f"--{key}={train[f'slurm_{key}']}" for key in ("partition", "account") if f"slurm_{key}" in train
    ]
    words += shlex.split(train.get("slurm_extra", ""))
    if not train.get("max_gpus"):
        ok, said = command("sbatch", "--test-only", *words, "--wrap=true")
        fine = Check("GPUs", "none are asked for; a job would be accepted")
        return (fine if ok else Check("GPUs", said, f"look at partition and account in {profile}")), words
    ways = {"--gpus": ["--gpus=1"], "--gres": [f"--gres={train.get('gpu_gres', 'gpu')}:1"]}
    tried = {way: command("sbatch", "--test-only", *words, *ask, "--wrap=true") for way, ask in ways.items()}
    way = "--gres" if "gpu_gres" in train else "--gpus"
    other = "--gpus" if way == "--gres" else "--gres"
    words += ways[way]
    if tried[way][0]:
        return Check("GPUs", f"a job with {ways[way][0]} would be accepted"), words
    if tried[other][0]:
        change = "set gpu_gres: gpu" if other == "--gres" else "remove gpu_gres"
        return Check(
            "GPUs", f"{ways[way][0]}: {tried[way][1]}", f"{other} works: {change} in {profile}"
        ), words
    remedy = f"look at partition and account in {profile}; max_gpus: 0 trains on processors"
    return Check("GPUs", tried[way][1], remedy), words


def _allocation(words: list[str], results: Path) -> Iterator[Check]:
    """What a training sees in a job of its own: the results folder, the GPU."""
    wanted = any(word.startswith(("--gpus", "--gres")) for word in words)
    token = results.resolve() / f".doctor-{uuid.uuid4().hex}"
    token.write_text("x")
    code = (
        "import pathlib, sys, torch; p = pathlib.Path(sys.argv[1]); print('folder', p.exists());"
        "p.write_text('y'); print('cuda', torch.cuda.is_available())"
    )
    try:
        ask = ["srun", f"--immediate={WAIT}", "-n1", "--time=5", "--mem=2000", *words]
        ok, said = command(*ask, sys.executable, "-c", code, str(token), seconds=4 * WAIT)
        if not ok:
            remedy = f"no job started within {WAIT} s or it failed; when the queue is shorter, try again"
            yield Check("a job", said, remedy)
            return
        shared = "folder True" in said and token.read_text() == "y"
        where = f"a job {'writes' if shared else 'does not see'} {results.resolve()}"
        remedy = "" if shared else "results_dir must be on a file system that all nodes share"
        yield Check("shared files", where, remedy)
        if wanted:
            sees = "cuda True" in said
            remedy = "install a torch with CUDA that fits the driver, or set max_gpus: 0 and device: core"
            found = f"torch {'sees' if sees else 'does not see'} a GPU in a job that has one"
            yield Check("torch", found, "" if sees else remedy)
    finally:
        token.unlink(missing_ok=True)
