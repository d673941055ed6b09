"""SLURM's commands, asked: which jobs are there, which partitions, what would be accepted."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20  # that a command of SLURM may take
TRAINING = "rule_train_wildcards_"  # and the run: the comment that the executor gives a job


@dataclass(frozen=True)
class Job:
    """A job of a training: its number and SLURM's word for its state."""

    number: int
    state: str


def command(*words: str, seconds: float = SECONDS) -> tuple[bool, str]:
    """Whether a command ended well, and what it said, on one line where it did not."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=False, timeout=seconds
        )
    except FileNotFoundError:
        return False, f"there is no {words[0]} on this machine"
    except subprocess.TimeoutExpired:
        return False, f"{words[0]} gave no answer in {seconds:.0f} s"
    if done.returncode:
        return False, " ".join((done.stderr or done.stdout).split())
    return True, done.stdout


def jobs(folder: Path) -> tuple[dict[str, Job], str]:
    """This user's waiting and running trainings of Snakemake in `folder`, by run; and what went wrong.

    Both are empty where there is no SLURM. Studies of one folder that name a run alike are not told apart.
    """
    if shutil.which("squeue") is None:
        return {}, ""
    ok, said = command("squeue", "-h", "-u", getpass.getuser(), "-o", "%i|%T|%Z|%k")
    return (named(said, folder), "") if ok else ({}, said)


def named(said: str, folder: Path) -> dict[str, Job]:
    """Jobs by run in lines of number, state, folder and comment, of which the last of each run counts."""
    found: dict[str, Job] = {}
    for line in said.splitlines():
        fields = line.split("|", 3)
        if len(fields) < 4:  # a warning
            continue
        number, state, where, comment = fields
        run = comment.removeprefix(TRAINING)
        if number.isdigit() and run != comment and Path(where).resolve() == folder.resolve():
            older = found.get(run)
            if older is None or older.number < int(number):
                found[run] = Job(int(number), state)
    return found
