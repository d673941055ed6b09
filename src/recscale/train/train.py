"""One run: a run and its problem in, metrics.json and model.safetensors out.

Here is what surrounds a training: who may write the run folder, signals, the resume state. The
training itself is loop.Trainer.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recscale import files
from recscale.errors import InputError
from recscale.study.folder import BRANCH, LAST, clean
from recscale.study.run import TRAIN_RECIPE, Run
from recscale.train import checkpoint, machine
from recscale.train.claim import claim
from recscale.train.loop import ANOTHER, Trainer
from recscale.train.problem import Problem
from recscale.train.processes import Processes, join
from recscale.train.progress import Progress

LOOK = 1.0  # seconds between two looks at the claim
WAITING = 2.0  # what the first process tells the others while it waits for the claim
Say = Callable[[str], None]


def train(
    run: Run,
    problem: Problem,
    out: Path,
    threads: int,
    say: Say,
    by_hand: Mapping[str, Any] | None = None,
    allow_change: bool = False,
) -> None:
    """Train `run` on its problem, choose the epoch on valid, test it once, write `out`/metrics.json.

    `by_hand` sets keys of Execution. A point of the same spec and data is left as it is, also one
    that the process which holds `out` now finishes while this one waits. Raises Interrupted on
    SIGTERM and SIGINT, saved; InputError for what a user can mend. A loss that is not finite ends
    the run with status `diverged` and no test metrics.
    """
    if run.recipe != TRAIN_RECIPE:
        raise InputError(f"spec: recipe: {run.recipe}, this version trains by recipe {TRAIN_RECIPE}")
    how = machine.choose(by_hand or {}, threads)
    processes = join(how.device)  # they part when the process ends
    say = say if processes.first else _silent
    out.mkdir(parents=True, exist_ok=True)

    def done() -> bool:
        return _is_done(out, run, problem.sha256)

    with _signals() as asked, _held(out, done, say, processes, asked) as taken:
        if taken is None:
            if processes.first:
                (out / "metrics.json").touch()  # newer than the data that it was checked against
            say(f"{out.name}: is trained already; remove its metrics.json to train it again")
            return

        def stop() -> str | None:
            return asked[0] if asked else taken()

        belongs = {"spec": run.spec(), "data_sha256": problem.sha256}
        state = _resume_state(out, belongs, say) if processes.first else None
        processes.wait()  # what the first has set aside, the others do not find
        state = state if processes.first else _resume_state(out, belongs, say)
        if state is not None:
            how, changes, notes = machine.resume(how, state[0]["execution"], by_hand or {})
            if changes and not allow_change:
                raise InputError(
                    f"{out / LAST}: the run began otherwise ({', '.join(changes)}); continue it as it "
                    "began (--device, --precision, ... set it), pass --allow-change, or remove the file to "
                    "start anew"
                )
            state[0]["progress"].setdefault("changes", []).extend(changes + notes)
        machine.apply(how)
        trainer = Trainer(run, problem, out, how, processes, say, stop)
        if state is not None:
            try:
                trainer.continue_from(*state)
            except checkpoint.Unusable as error:
                if processes.first:
                    _set_aside(out, say, error)
                trainer = Trainer(run, problem, out, how, processes, say, stop)
            state = None  # or its tensors would stay beside the model's
        trainer.train()


def _silent(line: str) -> None:
    """The other processes of a run: the first one speaks."""


def _is_done(out: Path, run: Run, data_sha256: str) -> bool:
    if not (out / "metrics.json").exists():
        return False
    point = files.read_json(out / "metrics.json", "spec", "data_sha256")
    return bool((point["spec"], point["data_sha256"]) == (json.loads(run.spec()), data_sha256))


@contextmanager
def _held(
    out: Path, done: Callable[[], bool], say: Say, processes: Processes, asked: list[str]
) -> Iterator[Callable[[], str | None] | None]:
    """Hold the run folder, by the first process for all; None where the run is done.

    Gives a function that says by whom the claim was taken over, if it was.
    """

    def waits() -> str | None:
        processes.largest(WAITING)  # or the others give up when no message came for long
        return asked[0] if asked else None

    held = claim(out, done, say, waits) if processes.first else None
    while (state := processes.largest(float(processes.first and held is None))) == WAITING:
        pass
    finished = state > 0
    looked = time.monotonic()

    def taken() -> str | None:
        nonlocal looked
        if held is not None and time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            held.check()
        return ANOTHER if held is not None and held.lost else None

    if finished and processes.first:  # what a process left that was killed while it cleaned up
        held = claim(out, lambda: False, _silent)
        clean(out)
    try:
        yield None if finished else taken
    finally:
        if held is not None:
            held.release()


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Collects the names of SIGTERM and SIGINT instead of dying of them; a second SIGINT ends the process.

    SIGTERM may come again: SLURM sends it before the limit of time and at it, and torchrun passes it on to
    processes that had it already. Whoever wants no checkpoint sends SIGKILL.
    """
    asked: list[str] = []

    def ask(number: int, _: Any) -> None:
        asked.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resume_state(
    out: Path, belongs: dict[str, Any], say: Say
) -> tuple[dict[str, Any], checkpoint.Tensors] | None:
    """The checkpoint in `out`, of the branch in progress or of the trunk; None where none can be used."""
    if not (out / LAST).exists():
        return None
    try:
        header, tensors = checkpoint.resume(out / LAST, belongs)
        machine.known(header["execution"])
        leg = Progress(**header["progress"]).leg
    except (checkpoint.Unusable, KeyError, TypeError) as error:
        _set_aside(out, say, error)
        return None
    if (out / BRANCH).exists():
        try:
            branch = checkpoint.resume(out / BRANCH, belongs)
        except checkpoint.Unusable as error:
            say(f"{out.name}: {BRANCH} is not used, the cooldown begins anew: {error}")
        else:
            if branch[0]["progress"]["leg"] == leg:  # else it is finished
                return branch
    return header, tensors


def _set_aside(out: Path, say: Say, error: Exception) -> None:
    aside = out / f"unusable-{LAST}"
    os.replace(out / LAST, aside)
    reason = " ".join(str(error).split())[:150]
    say(f"{out.name}: {LAST} cannot be used and is now {aside.name}, starting anew: {reason}")
