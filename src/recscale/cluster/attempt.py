"""One attempt at a run: the training as a process of its own, watched from outside.

The attempt ends as the training does: done, or with 75, saved and to be started again. In a SLURM job that
may be requeued it asks for that instead of ending with 75: the same job comes back, no retry is used. What
else ends a training is noted in `failures.json` beside the run. The same failure twice makes the run a failed
one: `failed.json` says why, and later attempts end at once until that file is removed.

Nothing here is heavy: Snakemake reads the notes for every job.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from recscale import files
from recscale.cluster import slurm
from recscale.errors import InputError
from recscale.study.folder import ATTEMPTS, FAILED, FAILURES, STATES

KILLED = "killed by SIGKILL"
LINES = 20  # of the output that are kept
TAIL = 200  # that are looked at: torchrun's report of eight processes is 80 lines
SAVED = 75
TWICE, KILLS = 2, 4  # the same failure so often is the last one; killed for memory, it first gets more
GRACE = 2.0  # seconds in which a signal to all processes of a job has reached the training by itself
PATIENCE = 120.0  # seconds in which SLURM ends a job that it requeues
SAYS = re.compile(r"(?:\[rank\d+\]: )?((?:recscale: |[\w.]*(?:Error|Exception)\b).*)")
TORCHRUN = "torch/distributed/elastic/"  # in the first line of its report
EXITED = re.compile(r"  exitcode\s+: (-?\d+)")  # in that report; the last one is of who failed first
Say = Callable[[str], None]


def attempt(command: list[str], spec: str, out: Path, log: Path, processes: int, say: Say) -> int:
    """Run `command`, a training of `spec` into `out`; its output also goes to `log`. Returns the exit code.

    `processes` above one start it under torchrun, which ends with 1 whatever its processes end with.
    """
    poison = failed(out, spec)
    if poison is not None:
        last = f"{out.name}: {text(poison)}; remove {out / FAILED} to try again"
        log.parent.mkdir(parents=True, exist_ok=True)  # Snakemake has removed the log that is named
        log.write_text("\n".join([*poison["lines"], last]) + "\n")
        say(last)
        return 1
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*torchrun, f"--nproc-per-node={processes}", *command[1:]]
    saved, asked, child = _saved(out), list[int](), list[subprocess.Popen[str]]()

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        if number == signal.SIGTERM and processes == 1:  # torchrun bears no second one
            later = threading.Timer(GRACE, _pass_on, [child])
            later.daemon = True
            later.start()

    mark = out / ATTEMPTS.replace("*", os.environ.get("SLURM_JOB_ID") or f"pid{os.getpid()}")
    files.write_json(mark, _where())
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code, lines = _watch(command, log, say, child)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        mark.unlink(missing_ok=True)
    if code == 0:
        return 0
    if code == SAVED or -code in asked or (processes > 1 and asked):  # -15: it did not listen yet
        if signal.SIGTERM in asked and _saved(out) != saved:
            _requeue(out, say)
        return SAVED
    note(out, spec, *(_first_failed(code, lines) if processes > 1 else (code, lines)), log, say)
    return code if code > 0 else 128 - code


def _pass_on(child: list[subprocess.Popen[str]]) -> None:
    """SIGTERM to the training, which bears a second one, if it is still there."""
    for process in child:
        process.send_signal(signal.SIGTERM)


def _saved(out: Path) -> list[tuple[int, int]]:
    """What tells one resume state from another; clocks of node and file server are not compared."""
    found = []
    for name in STATES:
        with suppress(FileNotFoundError):
            state = (out / name).stat()
            found.append((state.st_ino, state.st_mtime_ns))
    return found


def _first_failed(code: int, lines: list[str]) -> tuple[int, list[str]]:
    """Exit code of the process that failed first by torchrun's report, and the lines before the report."""
    codes = [int(found[1]) for line in lines if (found := EXITED.match(line))]
    report = next((number for number, line in enumerate(lines) if TORCHRUN in line), len(lines))
    return (codes[-1], lines[:report]) if codes else (code, lines)


def _watch(
    command: list[str], log: Path, say: Say, child: list[subprocess.Popen[str]]
) -> tuple[int, list[str]]:
    """Exit code and last lines of `command`, which `child` gets to hold."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = deque[str](maxlen=TAIL)
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        child.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            say(line.rstrip("\n"))
            file.write(line)
            file.flush()
        return process.wait(), list(lines)


def _requeue(out: Path, say: Say) -> None:
    """Put the job of this process back into the queue, which ends the process; return if that may not be.

    A job that is not of Snakemake's executor may hold other runs, and its script was not made to begin again.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    # A job that was cancelled would come back: SLURM requeues also what is already ending.
    alive, said = slurm.command("squeue", "-h", "-j", job, "-o", "%T|%k")
    if not alive or not said.startswith(f"RUNNING|{slurm.TRAINING}"):
        return
    done, said = slurm.command("scontrol", "requeue", job)
    if done:
        say(f"{out.name}: job {job} is put back into the queue")
        time.sleep(PATIENCE)
    say(f"{out.name}: job {job} is not requeued: {said or 'it goes on'}")


def note(out: Path, spec: str, code: int, lines: list[str], log: Path, say: Say) -> None:
    """Add a failure to failures.json; the one too many of its kind in a row is written to failed.json too."""
    found = {"reason": reason(code, lines), "lines": lines[-LINES:], "log": str(log), **_where()}
    noted = [*_failures(out, spec), found]
    kind, enough = alike(found["reason"]), KILLS if found["reason"].startswith(KILLED) else TWICE
    # What led to a failed.json that was removed since does not count again.
    row = [alike(failure["reason"]) for failure in noted[-enough:] if not failure.get("last")]
    found["last"] = row == [kind] * enough
    files.write_json(out / FAILURES, {"spec": spec, "failures": noted})
    if found["last"]:
        files.write_json(out / FAILED, {"spec": spec, **found})
        say(f"{out.name}: {text(found)}; it is not tried again until {out / FAILED} is removed")


def _where() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"job_id": os.environ.get("SLURM_JOB_ID"), "host": platform.node(), "noted": now}


def reason(code: int, lines: list[str]) -> str:
    """Why a training ended, in one line: its last word of an error, else how its process ended."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"{KILLED}, as it happens where memory runs out" if name == "SIGKILL" else f"ended by {name}"
    for line in reversed(lines):
        said = SAYS.match(line)
        if said and "ChildFailedError" not in line:
            return said[1].removeprefix("recscale: ")
    return f"exit code {code}" + (f": {lines[-1].strip()}" if lines else "")


def alike(reason: str) -> str:
    """What two reasons have in common that differ in numbers only: steps, addresses, process ids."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", reason)


def text(failure: dict[str, Any]) -> str:
    """A failure of failed.json in one line."""
    job = f", job {failure['job_id']}" if failure["job_id"] else ""
    return f"failed the same way again{job}: {failure['reason']}; its log: {failure['log']}"


def failed(out: Path, spec: str) -> dict[str, Any] | None:
    """failed.json of a run folder, if there is one and it is of this spec."""
    if not (out / FAILED).exists():
        return None
    try:
        content = files.read_json(out / FAILED, "spec", "reason", "log", "job_id", "lines")
    except InputError as error:  # one that is damaged says so, and is as good as whole
        return {"reason": str(error), "log": "none", "job_id": None, "lines": []}
    return content if content["spec"] == spec else None


def last_failure(out: Path, spec: str) -> str | None:
    """Why the last attempt that failed did, with its log; None where none failed."""
    noted = _failures(out, spec)
    return f"{noted[-1]['reason']}; log: {noted[-1]['log'] or 'none'}" if noted else None


def kills(out: Path, spec: str, again: bool) -> int:
    """How often an attempt was killed, as far as is known: it may need more memory.

    `again`: for a retry, when an attempt that is still marked is one that ended without a word.
    """
    noted = sum(failure["reason"].startswith(KILLED) for failure in _failures(out, spec))
    marked = len(list(out.glob(ATTEMPTS))) if again else 0
    return int(noted) + marked


def _failures(out: Path, spec: str) -> list[dict[str, Any]]:
    try:
        content = json.loads((out / FAILURES).read_text())
        noted = content["failures"] if content["spec"] == spec else []
        whole = all(isinstance(failure["reason"], str) and "log" in failure for failure in noted)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return list(noted) if whole else []  # else written by something else: it only counts again from here
