"""Trains one run in forked children that are killed by SIGKILL, each at a moment of its own.

Run by test_train.py: kill_at.py SPEC DATA OUT MOMENT... with moments such as `step:7`, the seventh
training step, or `seconds:0.3`. Prints what each child had said; ends with a run that is not killed.
"""

import os
import signal
import sys
import time
from pathlib import Path

import safetensors.torch
import torch
import torch._dynamo  # once here, not in every child

from recscale import files
from recscale.next_item import problem
from recscale.study.run import Run
from recscale.train import loop
from runs import train

loop.SAVE_EVERY, loop.SAVE_SHARE = 0.0, 1e9  # a checkpoint after every step
torch.set_num_threads(1)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_on(owner, name, count, after=False):
    """SIGKILL at the `count`-th call of a function, before or after it."""
    true, calls = getattr(owner, name), []

    def planted(*args, **kwargs):
        calls.append(1)
        if len(calls) == count and not after:
            die()
        result = true(*args, **kwargs)
        if len(calls) == count:
            die()
        return result

    setattr(owner, name, planted)


def half_written(count):
    """SIGKILL when the `count`-th safetensors file is half on disk."""
    true, calls = safetensors.torch.save_file, []

    def planted(tensors, path, metadata=None):
        calls.append(1)
        true(tensors, path, metadata=metadata)
        if len(calls) == count:
            os.truncate(path, path.stat().st_size // 2)
            die()

    safetensors.torch.save_file = planted


MOMENTS = {
    "step": lambda n: kill_on(loop.Trainer, "_gradients", n),
    "evaluation": lambda n: kill_on(problem, "evaluate", n, after=True),
    "switch": lambda n: kill_on(loop.Trainer, "_switch_if_converged", n),
    "saved": lambda n: kill_on(loop.Trainer, "_save", n, after=True),
    "writing": half_written,
    "branch": lambda n: kill_on(loop.Trainer, "_finish_branch", n),
    "point": lambda n: kill_on(files, "write_json", n),
}


def child(spec, data, out, moment):
    pid = os.fork()
    if pid:
        return pid
    kind, _, count = moment.partition(":")
    if kind in MOMENTS:
        MOMENTS[kind](int(count))
    train(Run.from_spec(spec), data, out, 1, lambda line: print(line, flush=True))
    os._exit(0)


def main():
    spec, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for moment in [*sys.argv[4:], "never"]:
        print("moment", moment, flush=True)
        pid = child(spec, data, out, moment)
        if moment.startswith("seconds:"):
            time.sleep(float(moment.partition(":")[2]))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
