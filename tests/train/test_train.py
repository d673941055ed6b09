import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch

from conftest import REPO, log_of, made_up, prepare, write_dataset
from recscale.errors import InputError, Interrupted
from recscale.next_item import evaluate as evaluate_module
from recscale.next_item import problem, sequences
from recscale.next_item.evaluate import evaluate
from recscale.next_item.models.decoder import Decoder
from recscale.study.run import training_flops
from recscale.train import checkpoint, loop, machine
from recscale.train.loop import LAST
from runs import run_of, train

RUN = run_of("made-up", 1, 16, 0.02, n_heads=2, max_len=12, stride=12, epochs=3, batch_size=16)
VOLATILE = (
    "seconds", "seconds_saving", "seconds_left", "targets_per_second", "peak_memory_bytes", "host", "commit",
)  # fmt: skip


def quiet(_):
    pass


def stable(point):
    """A point without what two runs of the same spec need not share."""
    if isinstance(point, dict):
        kept = {k: stable(v) for k, v in point.items() if k not in VOLATILE}
        return kept if "epoch" in kept else {k: v for k, v in kept.items() if k != "finished"}  # a date
    return [stable(v) for v in point] if isinstance(point, list) else point


def read(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def done(small_data, tmp_path):
    train(RUN, small_data, tmp_path / "run", 1, quiet)
    return tmp_path / "run"


def test_a_point_is_complete(done, small_data):
    point, data = read(done), sequences.load(small_data)
    d = int(np.maximum(data.train_length - 1, 0).sum())
    assert point["spec"] == json.loads(RUN.spec())
    assert (point["D"], point["D_seen"]) == (d, 3 * d)
    assert point["N"] == 12 * 16**2
    assert [epoch["epoch"] for epoch in point["epochs"]] == [1, 2, 3]
    assert point["epochs"][2]["train_loss"] < point["epochs"][0]["train_loss"]
    # stride = max_len: a position is at least one target, context before a last short window more
    assert point["C"] >= training_flops(RUN, data.n_items, 3 * d, 3 * d)
    losses = [epoch["valid"]["loss"] for epoch in point["epochs"]]
    assert point["chosen_epoch"] == 1 + losses.index(min(losses))
    assert sorted(p.name for p in done.iterdir()) == ["log.jsonl", "metrics.json", "model.safetensors"]


def test_the_weights_are_those_of_the_test_metrics(done, small_data):
    data = sequences.load(small_data)
    model = Decoder(data.n_items, 1, 16, 2, 12)
    model.load_state_dict(safetensors.torch.load_file(done / "model.safetensors"))
    items = torch.from_numpy(data.items)
    assert evaluate(model, data, "test", 12, items) == pytest.approx(read(done)["test"])


def test_the_checkpoint_is_the_best_on_valid_and_not_the_last(small_data, tmp_path, monkeypatch):
    """Valid losses 2, 1, 3: epoch 2 is chosen, and the weights are those of epoch 2."""
    true, calls = evaluate, []

    def planted(model, data, split, *rest):
        result = true(model, data, split, *rest)
        calls.append((split, model.item_table.weight.detach().clone()))
        return result | {"loss": [2.0, 1.0, 3.0, result["loss"]][len(calls) - 1]}

    monkeypatch.setattr(problem, "evaluate", planted)
    train(RUN, small_data, tmp_path / "run", 1, quiet)
    assert read(tmp_path / "run")["chosen_epoch"] == 2
    assert [split for split, _ in calls] == ["valid", "valid", "valid", "test"]  # test once
    assert torch.equal(calls[3][1], calls[1][1])
    assert not torch.equal(calls[3][1], calls[2][1])


def test_the_same_spec_gives_the_same_bytes_and_another_seed_does_not(done, small_data, tmp_path):
    train(RUN, small_data, tmp_path / "again", 1, quiet)
    assert stable(read(tmp_path / "again")) == stable(read(done))
    weights = [(f / "model.safetensors").read_bytes() for f in (done, tmp_path / "again")]
    assert weights[0] == weights[1]
    train(RUN.but(seed=2), small_data, tmp_path / "other", 1, quiet)
    assert (tmp_path / "other/model.safetensors").read_bytes() != weights[0]


# A run with everything in it: layer-wise dropout, branches, a switch, an epoch tested on the way.
FULL = RUN.but(
    n_layers=2, epochs=5, dropout=0.3, dropout_last=0.1, dropout_embedding=0.2, schedule="constant",
    test_epochs=(1, 3), switch_patience=1, switch_learning_rate=0.5, weight_decay=1e-8,
)  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Data, and FULL trained without an interruption."""
    folder = tmp_path_factory.mktemp("full")
    data = made_up(folder)
    train(FULL, data, folder / "run", 1, quiet)
    return data, folder / "run"


def same_run(out, done):
    assert stable(read(out)) == stable(read(done))
    assert (out / "model.safetensors").read_bytes() == (done / "model.safetensors").read_bytes()
    logs = [(f / "log.jsonl").read_text().splitlines() for f in (out, done)]
    assert [stable(json.loads(x)) for x in logs[0]] == [stable(json.loads(x)) for x in logs[1]]
    assert sorted(p.name for p in out.iterdir()) == ["log.jsonl", "metrics.json", "model.safetensors"]


def test_the_full_run_has_everything_in_it(full):
    """So that the tests of resuming below are about all of it."""
    point = read(full[1])
    assert [(row["epoch"], row["finished"]) for row in point["tests"]] == [(1, True), (3, True)]
    assert point["switch"]["happened"] is not None
    assert [epoch["optimizer"] for epoch in point["epochs"]][::4] == ["adam", "sgd"]
    assert point["tests"][0]["test"]["loss"] != point["tests"][1]["test"]["loss"]


MOMENTS = [
    "step:1", "step:2", "writing:1", "step:7", "saved:5", "writing:3", "branch:1", "evaluation:1", "branch:1",
    "evaluation:2", "switch:1", "step:5", "seconds:0.2", "branch:1", "writing:2", "switch:1", "saved:4",
    "step:11", "switch:1", "step:9", "writing:20", "evaluation:1", "point:1", "point:1",
]  # fmt: skip


def test_killed_at_any_moment_it_ends_the_same(full, tmp_path):
    """SIGKILL at more than twenty moments of one run, in every phase, each after a resume."""
    data, done = full
    command = [sys.executable, str(REPO / "tests/kill_at.py"), FULL.spec(), str(data), str(tmp_path / "run")]
    process = subprocess.run([*command, *MOMENTS], capture_output=True, text=True, check=False)
    said = process.stdout + process.stderr
    ends = re.findall(r"^moment (\w+).*?^(killed|ended)", process.stdout, re.M | re.S)
    killed = [moment for moment, end in ends if end == "killed"]
    assert len(killed) >= 20, said
    assert {"step", "saved", "writing", "branch", "evaluation", "switch", "point"} <= set(killed), said
    assert process.stdout.rstrip().endswith("ended 0"), said
    assert "starting anew" not in said
    same_run(tmp_path / "run", done)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_sigterm_in_any_evaluation_changes_nothing(small_data, tmp_path, monkeypatch, schedule):
    """Asked to stop before each block of users in turn: of valid, of test on the way, of branches."""
    run = RUN.but(epochs=2, test_epochs=(1, 2), schedule=schedule)
    train(run, small_data, tmp_path / "done", 1, quiet)
    true, calls = loop.Trainer._stop_if_asked, []

    def planted(self, last):
        calls.append(1)
        if len(calls) == last:
            os.kill(os.getpid(), signal.SIGTERM)
        true(self)

    for moment in (1, 2, 3, 4, 5):
        out = tmp_path / f"run-{moment}"
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "_stop_if_asked", lambda self, at=moment: planted(self, at))
            with pytest.raises(Interrupted, match="stopped by SIGTERM after epoch"):
                train(run, small_data, out, 1, quiet)
        train(run, small_data, out, 1, quiet)
        same_run(out, tmp_path / "done")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_75(full, tmp_path, number):
    data, done = full
    out = tmp_path / "run"
    command = [sys.executable, "-m", "recscale", "train", "--spec", FULL.spec()]
    command += ["--data", str(data), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (75, "")
    assert f"recscale: run: stopped by {number.name} after epoch " in stdout.splitlines()[-1]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "run: continues after epoch" in again.stdout
    same_run(out, done)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads which signals are caught from /proc"
)
def test_a_signal_before_the_training_ends_with_75_too(full, tmp_path):
    data, _ = full
    command = [sys.executable, "-m", "recscale", "train", "--spec", FULL.spec()]
    command += ["--data", str(data), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:  # until it catches SIGTERM; torch is not imported yet
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate()[0]
    assert process.returncode == 75


def test_the_second_process_ends_with_the_first(full, tmp_path):
    """Two at once on one run: one trains, the other waits and ends with success."""
    data, done = full
    out = tmp_path / "run"
    command = [sys.executable, "-m", "recscale", "train", "--spec", FULL.spec()]
    command += ["--data", str(data), "--out", str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted((process.communicate()[0] for process in both), key=len)
    assert [process.returncode for process in both] == [0, 0]
    assert "is being trained by process" in said[0]
    assert "is trained already" in said[0]
    assert "epoch 5/5" not in said[0]
    assert "epoch 5/5" in said[1]
    same_run(out, done)


def test_the_second_process_takes_over_from_a_killed_first(full, tmp_path):
    data, done = full
    out = tmp_path / "run"
    command = [sys.executable, "-m", "recscale", "train", "--spec", FULL.spec()]
    command += ["--data", str(data), "--out", str(out)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (out / LAST).exists() and first.poll() is None:
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGSTOP)  # alive, but not moving
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "is being trained by process" in second.stdout.readline()
    first.kill()
    first.communicate()
    said = second.communicate()[0]
    assert second.returncode == 0
    assert "takes over from process" in said
    same_run(out, done)


def test_a_signal_while_libraries_load_is_75(tmp_path):
    """They catch what is raised while they load, in places: half loaded, they fail of something else."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(1)\n"
        "except Exception:\n    pass\nraise AttributeError('half loaded')\n"
    )
    command = [sys.executable, "-m", "recscale", "train", "--spec", RUN.spec(), "--data", "no", "--out", "no"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout == "recscale: stopped by SIGTERM outside the training; nothing to save\n"


def test_sigterm_may_come_again_and_again(full, tmp_path):
    """SLURM sends it before the limit and at it, torchrun passes on what its processes had already."""
    data, _ = full
    out = tmp_path / "run"
    long = RUN.but(epochs=100_000)
    command = [sys.executable, "-m", "recscale", "train", "--spec", long.spec()]
    command += ["--data", str(data), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while ": epoch 2/" not in process.stdout.readline():
        assert process.poll() is None
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    said = process.stdout.read()
    assert process.returncode == 75, said
    assert "stopped by SIGTERM" in said
    assert (out / LAST).exists()
    assert not (out / "running.json").exists()


def test_a_finished_run_has_no_notes_of_failures(full, tmp_path):
    """Another job may finish a run that was given up; what is left of it is told as a failure at the end."""
    data, done = full
    out = shutil.copytree(done, tmp_path / "run")
    for name in ("failures.json", "failed.json", "attempt-7.json"):
        (out / name).write_text("{}")
    train(FULL, data, out, 1, print)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in done.iterdir())


def test_a_point_that_is_there_is_kept_and_becomes_newer_than_its_data(full, tmp_path):
    """Snakemake plans a point that is older than its data; of the same data it is the same point."""
    data, done = full
    out = shutil.copytree(done, tmp_path / "run")
    os.utime(out / "metrics.json", (0, 0))
    before = (out / "metrics.json").read_bytes()
    train(FULL, data, out, 1, print)
    assert (out / "metrics.json").read_bytes() == before
    assert (out / "metrics.json").stat().st_mtime > 10**9


def interrupted(data, out, epoch=2, run=RUN):
    """Train until an epoch is saved and stop there; the content of the checkpoint."""

    class Stop(Exception):
        pass

    def say(line):
        if f"epoch {epoch}/" in line:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        patch.setattr(loop, "SAVE_SHARE", 1e9)
        with pytest.raises(Stop):
            train(run, data, out, 1, say)
    return checkpoint.read(out / LAST)


def rewrite(**changed):
    def damage(out, header, tensors):
        checkpoint.write(out / LAST, tensors, header | changed)

    return damage


def flip(out, header, tensors):
    """One bit of one weight."""
    content = bytearray((out / LAST).read_bytes())
    content[-100] ^= 1
    (out / LAST).write_bytes(content)


def flip_header(out, header, tensors):
    """One digit of the loss so far."""
    content = (out / LAST).read_bytes()
    at = content.index(b"epoch_targets") + len(b"epoch_targets") + 5
    digit = b"1" if content[at : at + 1] != b"1" else b"2"
    (out / LAST).write_bytes(content[:at] + digit + content[at + 1 :])


def other_format(out, header, tensors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        checkpoint.write(out / LAST, tensors, header)


DAMAGE = {
    "empty": lambda out, *_: (out / LAST).write_bytes(b""),
    "text": lambda out, *_: (out / LAST).write_bytes(b"not a checkpoint"),
    "truncated": lambda out, *_: os.truncate(out / LAST, 5000),
    "one bit": flip,
    "one digit": flip_header,
    "progress": rewrite(progress={"leg": 0, "stepp": 3}),
    "execution": rewrite(execution={}),
    "pickle": lambda out, header, tensors: torch.save(tensors, out / LAST),
    "format": other_format,
    "spec": rewrite(spec="{}"),
    "data": rewrite(data_sha256="0"),
    "tensors": lambda out, header, tensors: checkpoint.write(out / LAST, {}, header),
    "best gone": lambda out, *_: next(out.glob("best-*")).unlink(),
    "best junk": lambda out, *_: next(out.glob("best-*")).write_bytes(b"junk"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_foreign_or_damaged_resume_state_is_set_aside(done, small_data, tmp_path, damage):
    out = tmp_path / "foreign"
    DAMAGE[damage](out, *interrupted(small_data, out))
    said = []
    train(RUN, small_data, out, 1, said.append)
    assert len([line for line in said if "cannot be used and is now unusable-" in line]) == 1
    same_run(out, done)


def test_checkpoints_take_two_percent_of_the_time_whatever_one_costs(small_data, tmp_path, monkeypatch):
    """A checkpoint that takes as long as an epoch is written rarely: by the clock, made up here."""
    clock, saves = [0.0], []

    def slow(path, header, model, optimizer):
        clock[0] += 1.0
        saves.append(clock[0])

    def step(self, chosen, true=loop.Trainer._gradients):
        clock[0] += 0.1
        return true(self, chosen)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop.Trainer, "_gradients", step)
    monkeypatch.setattr(checkpoint, "save", slow)
    run = RUN.but(epochs=100)
    train(run, small_data, tmp_path / "run", 1, quiet)
    point = read(tmp_path / "run")
    assert len(saves) >= 4
    assert point["seconds_saving"] == pytest.approx(len(saves))
    assert point["seconds_saving"] <= 0.02 * point["seconds"] + 1  # the first one told what it costs
    assert np.diff(saves).min() >= 50


def test_broken_lines_of_the_log_are_dropped_on_resume(done, small_data, tmp_path):
    out = tmp_path / "cut"
    interrupted(small_data, out)
    with (out / "log.jsonl").open("ab") as log:
        log.write(b'{"epoch": }\n{"a": 1}\n\xff\xfe\n{"epoch": 3, "st')
    train(RUN, small_data, out, 1, quiet)
    assert len((out / "log.jsonl").read_text().splitlines()) == 3
    same_run(out, done)


def test_a_resumed_run_keeps_how_it_began(small_data, tmp_path):
    """By hand float32, then resumed on its own: still float32; another choice is refused or recorded."""
    began, other = {"precision": "float32"}, {"precision": "bfloat16", "micro_batch": 4}
    interrupted_how = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "choose", lambda by_hand, threads, true=machine.choose: true(began, 1))
        interrupted(small_data, interrupted_how)
    with pytest.raises(InputError, match=r"float32 -> bfloat16, micro_batch 0 -> 4.*--allow-change"):
        train(RUN, small_data, interrupted_how, 1, quiet, other)
    shutil.copytree(interrupted_how, tmp_path / "changed")
    train(RUN, small_data, interrupted_how, 1, quiet)
    point = read(interrupted_how)
    assert (point["precision"], point["changes"]) == ("float32", [])
    train(RUN, small_data, tmp_path / "changed", 1, quiet, other, allow_change=True)
    point = read(tmp_path / "changed")
    assert point["precision"] == "bfloat16"
    assert point["changes"] == ["precision float32 -> bfloat16", "micro_batch 0 -> 4"]


def test_another_recipe_is_refused(small_data, tmp_path):
    run = RUN.but(recipe=RUN.recipe + 1)
    with pytest.raises(InputError, match="this version trains by recipe"):
        train(run, small_data, tmp_path / "run", 1, quiet)


def test_a_loss_that_is_not_finite_ends_as_diverged(small_data, tmp_path):
    said = []
    run = RUN.but(learning_rate=1e30)
    train(run, small_data, tmp_path / "run", 1, said.append)
    point = read(tmp_path / "run")
    assert (point["status"], point["test"], point["chosen_epoch"]) == ("diverged", None, None)
    assert "diverged" in said[-1]
    at = point["diverged"]
    assert (at["epoch"], at["split"], len(at["losses_before"])) == (1, "train", at["step"] - 1)
    assert 0 < point["D_seen"] <= at["step"] * 16 * 12  # what came after the failure does not count
    assert at["losses_before"][0] == pytest.approx(math.log(30), rel=0.05)  # the first step was sound


def test_a_valid_loss_that_is_not_finite_names_the_epoch_that_led_to_it(small_data, tmp_path, monkeypatch):
    true = evaluate

    def planted(*args):
        return true(*args) | {"loss": math.nan}

    monkeypatch.setattr(problem, "evaluate", planted)
    train(RUN.but(epochs=1), small_data, tmp_path / "run", 1, quiet)
    at = read(tmp_path / "run")["diverged"]
    assert (at["split"], at["epoch"]) == ("valid", 1)
    assert at["learning_rate"] > 0
    assert 1 < at["losses_before"][0] < math.log(30)  # the mean of that epoch


def test_it_learns_what_there_is_to_learn(small_data, tmp_path):
    """Histories step through 30 items by 1 or 2: after the first step the next item is certain."""
    run = RUN.but(epochs=15, dropout=0.0)
    train(run, small_data, tmp_path / "run", 1, quiet)
    assert read(tmp_path / "run")["test"]["loss"] < 0.35 < math.log(30)


@pytest.mark.parametrize(
    "by_hand",
    [{"precision": "bfloat16"}, {"attention": "fused"}, {"recompute": True}, {"allocator": "default"}],
    ids=str,
)
def test_however_it_is_computed_it_learns_the_same(small_data, tmp_path, by_hand):
    run = RUN.but(epochs=8, dropout=0.0)
    train(run, small_data, tmp_path / "run", 1, quiet, by_hand)
    train(run, small_data, tmp_path / "plain", 1, quiet, {"precision": "float32", "attention": "plain"})
    point, plain = read(tmp_path / "run"), read(tmp_path / "plain")
    assert point["execution"].items() >= by_hand.items()
    assert point["test"]["loss"] == pytest.approx(plain["test"]["loss"], rel=0.03)


def test_recomputation_changes_no_number_with_dropout(small_data, tmp_path):
    for name, recompute in (("kept", False), ("recomputed", True)):
        train(RUN, small_data, tmp_path / name, 1, quiet, {"recompute": recompute})
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("kept", "recomputed")]
    assert weights[0] == weights[1]


def test_micro_batches_give_the_gradients_of_the_batch(small_data, tmp_path):
    """Windows differ in their targets, so a mean of means would show: five of 16 at a time, no dropout."""
    run = RUN.but(dropout=0.0)
    losses = []
    for size in (0, 5, 1):
        train(run, small_data, tmp_path / f"{size}", 1, quiet, {"precision": "float32", "micro_batch": size})
        losses.append([epoch["train_loss"] for epoch in read(tmp_path / f"{size}")["epochs"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def full_above(monkeypatch, limit):
    """A device that runs out of memory with more than `limit` windows at once."""
    true = problem.Objective.forward

    def planted(self, inputs, places, target):
        if len(inputs) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return true(self, inputs, places, target)

    monkeypatch.setattr(problem.Objective, "forward", planted)


def test_out_of_memory_halves_the_micro_batch(small_data, tmp_path, monkeypatch):
    run = RUN.but(dropout=0.0)
    train(run, small_data, tmp_path / "whole", 1, quiet, {"precision": "float32"})
    full_above(monkeypatch, 5)
    said = []
    train(run, small_data, tmp_path / "small", 1, said.append, {"precision": "float32"})
    whole, small = read(tmp_path / "whole"), read(tmp_path / "small")
    assert small["changes"] == ["out of memory: micro_batch 16 -> 8", "out of memory: micro_batch 8 -> 4"]
    assert small["execution"]["micro_batch"] == 4
    assert small["test"]["loss"] == pytest.approx(whole["test"]["loss"], rel=1e-3)
    assert "out of memory with 16 examples at once, goes on with 8" in said[0]


def test_out_of_memory_with_one_window_is_one_line(small_data, tmp_path, monkeypatch):
    full_above(monkeypatch, 0)
    with pytest.raises(InputError, match="out of memory with a single example"):
        train(RUN, small_data, tmp_path / "run", 1, quiet)


def test_dropout_is_a_line_over_the_layers():
    model = Decoder(10, 3, 8, 2, 5, 0.3, 0.1, 0.5)
    assert [block.dropout.rate for block in model.blocks] == pytest.approx([0.3, 0.2, 0.1])
    assert [block.attention.dropout for block in model.blocks] == pytest.approx([0.3, 0.2, 0.1])
    assert model.dropout.rate == 0.5


def test_a_finished_point_on_the_way_is_the_run_of_that_many_epochs(small_data, tmp_path):
    """The branch to epoch 2 of 4 is, to the bit, the last epoch of a run of 2 with the same warm-up."""
    long = RUN.but(epochs=4, schedule="constant", test_epochs=(2,))
    short = RUN.but(epochs=2, schedule="constant", test_epochs=(2,))
    train(long.but(dropout=0.0), small_data, tmp_path / "long", 1, quiet)
    train(short.but(dropout=0.0), small_data, tmp_path / "short", 1, quiet)
    ours, alone = read(tmp_path / "long")["tests"], read(tmp_path / "short")["tests"]
    assert len(ours) == len(alone) == 1
    assert ours[0] == alone[0]
    assert alone[0]["D_seen"] == read(tmp_path / "short")["D_seen"]
    assert alone[0]["C"] == read(tmp_path / "short")["C"]


def test_epochs_of_a_cosine_are_tested_as_points_of_a_curve(small_data, tmp_path):
    run = RUN.but(test_epochs=(1, 3))
    train(run, small_data, tmp_path / "run", 1, quiet)
    train(RUN, small_data, tmp_path / "untested", 1, quiet)
    point, untested = read(tmp_path / "run"), read(tmp_path / "untested")
    assert [(row["epoch"], row["finished"]) for row in point["tests"]] == [(1, False), (3, True)]
    assert stable(point["epochs"]) == stable(untested["epochs"])
    assert point["test"] == untested["test"]


def test_adam_gives_way_to_sgd_once_valid_has_converged(small_data, tmp_path, monkeypatch):
    """Valid losses 3, 1, 2, 2: with patience 2 the switch comes after epoch 4, from the weights of 2."""
    run = RUN.but(epochs=6, schedule="constant", switch_patience=2, switch_learning_rate=0.1, dropout=0.0)
    true, weights, before = evaluate, [], []
    losses = [3.0, 1.0, 2.0, 2.0, 0.9, 0.8]

    def planted(model, data, split, *rest):
        weights.append(model.norm.weight.detach().clone())
        return true(model, data, split, *rest) | (
            {"loss": losses[len(weights) - 1]} if split == "valid" else {}
        )

    def switch(self, epoch, true=loop.Trainer._switch_if_converged):
        true(self, epoch)
        if self.progress.switched and not before:
            before.append(self.model.norm.weight.detach().clone())
            assert isinstance(self.optimizer, torch.optim.SGD)

    monkeypatch.setattr(problem, "evaluate", planted)
    monkeypatch.setattr(loop.Trainer, "_switch_if_converged", switch)
    train(run, small_data, tmp_path / "run", 1, quiet)
    point = read(tmp_path / "run")
    assert point["switch"] == {
        "rule": "no better valid loss for 2 epochs",
        "happened": {"after_epoch": 4, "weights_of_epoch": 2},
    }
    assert [epoch["optimizer"] for epoch in point["epochs"]] == ["adam"] * 4 + ["sgd"] * 2
    assert torch.equal(before[0], weights[1])
    assert point["chosen_epoch"] == 6


def test_weight_decay_shrinks_the_weights(small_data, tmp_path):
    norms = {}
    for name, settings in {
        "none": {}, "l2": {"weight_decay": 0.1}, "decoupled": {"weight_decay": 0.1, "decoupled_decay": True}
    }.items():  # fmt: skip
        run = RUN.but(dropout=0.0, **settings)
        train(run, small_data, tmp_path / name, 1, quiet)
        weights = safetensors.torch.load_file(tmp_path / name / "model.safetensors")
        norms[name] = weights["item_table.weight"].norm().item()
    assert norms["l2"] < norms["none"]
    assert norms["decoupled"] < norms["none"]
    assert norms["l2"] != norms["decoupled"]


def test_a_halved_micro_batch_stays_halved_whatever_the_command_says(small_data, tmp_path, monkeypatch):
    """A requeued job gives the same --micro-batch again."""
    full_above(monkeypatch, 8)
    with pytest.MonkeyPatch.context() as patch:
        true = machine.choose
        patch.setattr(machine, "choose", lambda by_hand, threads: true({"micro_batch": 16}, threads))
        interrupted(small_data, tmp_path / "run")
    train(RUN, small_data, tmp_path / "run", 1, quiet, {"micro_batch": 16})
    assert read(tmp_path / "run")["execution"]["micro_batch"] == 8


def test_a_run_started_anew_uses_nothing_of_an_earlier_one(small_data, tmp_path, monkeypatch):
    """A branch and best weights that lie there without their trunk are removed."""
    run = RUN.but(schedule="constant", test_epochs=(1, 3))
    train(run, small_data, tmp_path / "done", 1, quiet)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_finish_branch", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        patch.setattr(loop, "SAVE_SHARE", 1e9)
        with pytest.raises(Interrupted):
            train(run, small_data, out, 1, quiet)
    (out / LAST).unlink()
    (out / loop.BRANCH).write_bytes(b"of an earlier one")
    train(run, small_data, out, 1, quiet)
    same_run(out, tmp_path / "done")


def test_what_a_killed_process_left_is_removed_by_the_next(done, small_data):
    """Killed between the point and the clean-up."""
    (done / LAST).write_bytes(b"left")
    (done / "best-3.safetensors").write_bytes(b"left")
    train(RUN, small_data, done, 1, quiet)
    assert sorted(p.name for p in done.iterdir()) == ["log.jsonl", "metrics.json", "model.safetensors"]


def test_several_processes_save_inside_an_epoch_and_cool_down(small_data, tmp_path):
    """A checkpoint after every step, by the first one's clock; branches that both leave and both end."""
    run = RUN.but(dropout=0.0, schedule="constant", test_epochs=(1, 2))
    train(run, small_data, tmp_path / "alone", 1, quiet, {"precision": "float32"})
    script = (
        "import sys; from recscale.train import loop; loop.SAVE_EVERY, loop.SAVE_SHARE = 0.0, 1e9; "
        "from recscale.cli.main import main; main()"
    )
    (tmp_path / "saving.py").write_text(script)
    tail = [str(tmp_path / "saving.py"), "train", "--spec", run.spec(), "--data", str(small_data)]
    tail += ["--precision", "float32", "--out", str(tmp_path / "pair")]
    done = subprocess.run([*TORCHRUN, *tail], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    ours, alone = read(tmp_path / "pair"), read(tmp_path / "alone")
    assert [row["test"]["loss"] for row in ours["tests"]] == pytest.approx(
        [row["test"]["loss"] for row in alone["tests"]], rel=1e-4
    )
    assert ours["test"]["loss"] == pytest.approx(alone["test"]["loss"], rel=1e-4)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def test_two_processes_train_as_one_and_share_checkpoints(small_data, tmp_path):
    """gloo on the CPU, no dropout, float32: sums in another order, so the curves agree to 1e-4."""
    run = RUN.but(dropout=0.0, epochs=4)
    alone, pair, mixed = (tmp_path / name for name in ("alone", "pair", "mixed"))
    tail = ["-m", "recscale", "train", "--spec", run.spec(), "--data", str(small_data)]
    tail += ["--precision", "float32", "--out"]
    train(run, small_data, alone, 1, quiet, {"precision": "float32"})
    done = subprocess.run([*TORCHRUN, *tail, str(pair)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 4/4") == 1  # one of them speaks
    with pytest.MonkeyPatch.context() as patch:  # one process begins, two go on
        true = machine.choose
        patch.setattr(machine, "choose", lambda by_hand, threads: true({"precision": "float32"}, threads))
        interrupted(small_data, mixed, run=run)
    done = subprocess.run([*TORCHRUN, *tail, str(mixed)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "continues after epoch" in done.stdout
    curves = [
        [(epoch["train_loss"], epoch["valid"]["loss"]) for epoch in read(out)["epochs"]]
        for out in (alone, pair, mixed)
    ]
    assert np.allclose(curves[1], curves[0], rtol=1e-4)
    assert np.allclose(curves[2], curves[0], rtol=1e-4)
    assert any("processes 1 -> 2" in change for change in read(mixed)["changes"])
    assert read(pair)["test"]["loss"] == pytest.approx(read(alone)["test"]["loss"], rel=1e-4)
    assert read(pair)["D_seen"] == read(alone)["D_seen"]
    assert read(pair)["execution"]["processes"] == 2


def test_the_data_fraction_limits_training_users_only(small_data, tmp_path):
    run = RUN.but(data_fraction=0.25, epochs=1)
    train(run, small_data, tmp_path / "run", 1, quiet)
    data = sequences.load(small_data)
    chosen = data.in_fraction(0.25)
    assert chosen.sum() == 50
    assert read(tmp_path / "run")["D"] == (data.train_length[chosen] - 1).clip(0).sum()


@pytest.fixture
def timed_data(tmp_path):
    """Sixty users over made-up seconds with many ties."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, 60)
    histories = [(rng.integers(20) + np.arange(n)) % 20 for n in lengths]
    return write_dataset(
        prepare(log_of(histories, [np.sort(rng.integers(0, 30, n)).tolist() for n in lengths]), 15), tmp_path
    )


def test_every_axis_trains_to_a_point_with_its_d_and_is_evaluated_the_same(timed_data, tmp_path, monkeypatch):
    """Targets and input items counted one by one; contexts of valid and test as evaluation sees them."""
    true, seen = evaluate_module.contexts, []

    def spy(data, split, max_len):
        where, target = true(data, split, max_len)
        seen.append((split, max_len, *(part.tolist() for part in (where.start, where.length, target))))
        return where, target

    monkeypatch.setattr(evaluate_module, "contexts", spy)
    frame = pl.read_parquet(timed_data / "sequences.parquet")
    trains = [
        (rank, seconds[: len(seconds) - withheld - 2])
        for rank, seconds, withheld in frame.select("sample_rank", "timestamps", "withheld").iter_rows()
    ]
    in_order = sorted((s for _, seconds in trains for s in seconds[:-1]), reverse=True)
    moment = in_order[math.ceil(0.3 * len(in_order)) - 1]
    kept = {
        "users": [(len(seconds), 1) for rank, seconds in trains if rank < math.ceil(0.3 * 60)],
        "history": [(len(seconds), 0.3) for _, seconds in trains],
        "time": [(sum(s >= moment for s in seconds), 1) for _, seconds in trains],
        "all": [(len(seconds), 1) for _, seconds in trains],
    }
    usual = RUN.but(stride=1, epochs=1)
    evaluated = []
    for axis, users in kept.items():
        more = {} if axis == "all" else {"data_axis": axis, "data_fraction": 0.3}
        run = usual.but(**more)
        train(run, timed_data, tmp_path / axis, 1, quiet)
        point = read(tmp_path / axis)
        inputs = [math.ceil(cut * min(k, run.windows.max_len)) for n, cut in users for k in range(1, n)]
        assert point["spec"] == json.loads(run.spec())
        assert (point["D"], point["D_seen"], point["D_input"]) == (len(inputs), len(inputs), sum(inputs))
        assert math.isfinite(point["test"]["loss"])
        evaluated.append(seen.copy())
        seen.clear()
    assert [split for split, *_ in evaluated[0]] == ["valid", "test"]
    assert all(contexts == evaluated[0] for contexts in evaluated)


def test_an_order_without_times_is_not_cut_by_time(timed_data, tmp_path):
    path = timed_data / "sequences.parquet"
    pl.read_parquet(path).drop("timestamps").write_parquet(path)
    run = RUN.but(data_axis="time", data_fraction=0.5)
    with pytest.raises(InputError, match=r"sequences\.parquet: timestamps: are absent .*users, history"):
        train(run, timed_data, tmp_path / "run", 1, quiet)
    assert not (tmp_path / "run").exists()
    train(run.but(data_axis="users", epochs=1), timed_data, tmp_path / "run", 1, quiet)


@pytest.mark.parametrize("more", [{}, {"data_axis": "time", "data_fraction": 0.5},
                                  {"data_axis": "history", "data_fraction": 0.5, "stride": 1}])  # fmt: skip
def test_data_without_a_train_target_is_one_line(tmp_path, more):
    folder = write_dataset(prepare(log_of([["a", "b", "c"]]), 15), tmp_path)
    with pytest.raises(InputError, match="has no train target"):
        train(RUN.but(**more), folder, tmp_path / "run", 1, quiet)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way_of_the_run_is_one_line(small_data, tmp_path):
    (tmp_path / "out").write_text("a file")
    command = [sys.executable, "-m", "recscale", "train", "--spec", RUN.spec()]
    command += ["--data", str(small_data), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(tmp_path / "out") in done.stderr


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(done, small_data, tmp_path):
    out = tmp_path / "disk"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root")
    command = [sys.executable, "-m", "recscale", "train", "--spec", RUN.spec()]
    command += ["--data", str(small_data), "--out", str(out)]
    try:
        failed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
        assert "no space left on device" in failed.stderr.lower()
        assert not (out / "metrics.json").exists()
        subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
        subprocess.run(command, check=True, capture_output=True)
        assert stable(read(out)) == stable(read(done))
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_two_processes_wait_longer_than_a_message_between_them_may_take(small_data, tmp_path):
    """Another job may train the run for days."""
    run, out = RUN.but(epochs=1), tmp_path / "run"
    out.mkdir()
    (out / "running.json").write_text(json.dumps({"pid": 1, "host": "elsewhere", "machine": "another"}))
    script = tmp_path / "script.py"
    script.write_text(
        "import datetime; from recscale.train import processes; from recscale.cli.main import main;"
        "processes.HOUR = datetime.timedelta(seconds=2); main()"
    )
    command = [*TORCHRUN, str(script), "train", "--spec", run.spec(), "--data", str(small_data)]
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    while "; waiting" not in "".join(said):
        said.append(process.stdout.readline())
        assert process.poll() is None, said
    time.sleep(5)
    (out / "running.json").unlink()
    said.append(process.communicate(timeout=120)[0])
    assert process.returncode == 0, "".join(said)
    assert (out / "metrics.json").exists()
