import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from conftest import log_of, write_dataset
from recscale import sequences
from recscale import train as module
from recscale.errors import InputError
from recscale.evaluate import evaluate
from recscale.model import Decoder
from recscale.prepare import prepare
from recscale.study import Run, training_flops
from recscale.train import train

RUN = Run("made-up", 1, 16, 0.02, n_heads=2, max_len=12, stride=12, epochs=3, batch_size=16)
VOLATILE = ("seconds", "targets_per_second", "peak_memory_bytes", "finished", "host", "commit")


def quiet(_):
    pass


def stable(point):
    """A point without what two runs of the same spec need not share."""
    if isinstance(point, dict):
        return {k: stable(v) for k, v in point.items() if k not in VOLATILE}
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
    model = Decoder(data.n_items, 1, 16, 2, 12, 0.0)
    model.load_state_dict(safetensors.torch.load_file(done / "model.safetensors"))
    items = torch.from_numpy(data.items.astype(np.int64))
    assert evaluate(model, data, "test", 12, items) == pytest.approx(read(done)["test"])


def test_the_checkpoint_is_the_best_on_valid_and_not_the_last(small_data, tmp_path, monkeypatch):
    """Valid losses 2, 1, 3: epoch 2 is chosen, and the weights are those of epoch 2."""
    true, calls = evaluate, []

    def planted(model, data, split, *rest):
        result = true(model, data, split, *rest)
        calls.append((split, model.item_table.weight.detach().clone()))
        return result | {"loss": [2.0, 1.0, 3.0, result["loss"]][len(calls) - 1]}

    monkeypatch.setattr(module, "evaluate", planted)
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
    train(dataclasses.replace(RUN, seed=2), small_data, tmp_path / "other", 1, quiet)
    assert (tmp_path / "other/model.safetensors").read_bytes() != weights[0]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_cut_off_after_an_epoch_ends_the_same(done, small_data, tmp_path, monkeypatch, epoch):
    out, save = tmp_path / "cut", module._save

    def save_and_die(run, data, out, model, optimizer, progress):
        save(run, data, out, model, optimizer, progress)
        if len(progress.epochs) == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(RUN, small_data, out, 1, quiet)
    assert not (out / "metrics.json").exists()
    monkeypatch.setattr(module, "_save", save)
    said = []
    train(RUN, small_data, out, 1, said.append)
    assert said[0] == f"cut: continues after epoch {epoch}"
    assert stable(read(out)) == stable(read(done))
    assert (out / "model.safetensors").read_bytes() == (done / "model.safetensors").read_bytes()
    logs = [(f / "log.jsonl").read_text().splitlines() for f in (out, done)]
    assert [stable(json.loads(x)) for x in logs[0]] == [stable(json.loads(x)) for x in logs[1]]
    assert not (out / "last.pt").exists()


def test_killed_at_any_moment_it_ends_the_same(done, small_data, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "recscale", "train", "--spec", RUN.spec()]
    command += ["--data", str(small_data), "--out", str(out)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (out / "log.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert stable(read(out)) == stable(read(done))
    assert (out / "model.safetensors").read_bytes() == (done / "model.safetensors").read_bytes()


def cut_after_the_second_epoch(small_data, out, monkeypatch):
    """A run stopped after its second epoch was saved; returns the content of its last.pt."""

    def save_and_die(run, data, out, model, optimizer, progress, save=module._save):
        save(run, data, out, model, optimizer, progress)
        if len(progress.epochs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(RUN, small_data, out, 1, quiet)
    return torch.load(out / "last.pt", weights_only=True)


DAMAGE = {
    "empty": lambda out, state: (out / "last.pt").write_bytes(b""),
    "text": lambda out, state: (out / "last.pt").write_bytes(b"not a checkpoint"),
    "truncated": lambda out, state: os.truncate(out / "last.pt", 5000),
    "list": lambda out, state: torch.save([1], out / "last.pt"),
    "keys": lambda out, state: torch.save({"spec": RUN.spec()}, out / "last.pt"),
    "spec": lambda out, state: torch.save(state | {"spec": "{}"}, out / "last.pt"),
    "data": lambda out, state: torch.save(state | {"data_sha256": "0"}, out / "last.pt"),
    "optimizer": lambda out, state: torch.save(state | {"optimizer": {}}, out / "last.pt"),
    "weights gone": lambda out, state: (out / "model.safetensors").unlink(),
    "weights junk": lambda out, state: (out / "model.safetensors").write_bytes(b"junk"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_foreign_or_damaged_resume_state_is_not_used(done, small_data, tmp_path, monkeypatch, damage):
    out = tmp_path / "foreign"
    DAMAGE[damage](out, cut_after_the_second_epoch(small_data, out, monkeypatch))
    said = []
    train(RUN, small_data, out, 1, said.append)
    assert "starting anew" in " ".join(said)
    assert stable(read(out)) == stable(read(done))


def test_broken_lines_of_the_log_are_dropped_on_resume(done, small_data, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    cut_after_the_second_epoch(small_data, out, monkeypatch)
    with (out / "log.jsonl").open("ab") as log:
        log.write(b'{"epoch": }\n{"a": 1}\n\xff\xfe\n{"epoch": 3, "st')
    train(RUN, small_data, out, 1, quiet)
    assert len((out / "log.jsonl").read_text().splitlines()) == 3
    assert stable(read(out)) == stable(read(done))


def test_another_recipe_is_refused(small_data, tmp_path):
    run = dataclasses.replace(RUN, recipe=RUN.recipe + 1)
    with pytest.raises(InputError, match="this version trains by recipe"):
        train(run, small_data, tmp_path / "run", 1, quiet)


def test_a_loss_that_is_not_finite_ends_as_diverged(small_data, tmp_path):
    said = []
    run = dataclasses.replace(RUN, learning_rate=1e30)
    train(run, small_data, tmp_path / "run", 1, said.append)
    point = read(tmp_path / "run")
    assert (point["status"], point["test"], point["chosen_epoch"]) == ("diverged", None, None)
    assert "diverged" in said[-1]


def test_it_learns_what_there_is_to_learn(small_data, tmp_path):
    """Histories step through 30 items by 1 or 2: after the first step the next item is certain."""
    run = dataclasses.replace(RUN, epochs=15, dropout=0.0)
    train(run, small_data, tmp_path / "run", 1, quiet)
    assert read(tmp_path / "run")["test"]["loss"] < 0.35 < math.log(30)


def test_bfloat16_trains_too(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_precision", lambda device: torch.bfloat16)
    run = dataclasses.replace(RUN, epochs=15, dropout=0.0)
    train(run, small_data, tmp_path / "run", 1, quiet)
    point = read(tmp_path / "run")
    assert point["precision"] == "bfloat16"
    assert point["test"]["loss"] < 0.5


def test_schedule_warms_up_and_ends_at_zero():
    values = [module._schedule(done, 0.1) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert values == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert module._schedule(0.0, 0.0) == 1


def test_the_data_fraction_limits_training_users_only(small_data, tmp_path):
    run = dataclasses.replace(RUN, data_fraction=0.25, epochs=1)
    train(run, small_data, tmp_path / "run", 1, quiet)
    data = sequences.load(small_data)
    chosen = data.in_fraction(0.25)
    assert chosen.sum() == 50
    assert read(tmp_path / "run")["D"] == (data.train_length[chosen] - 1).clip(0).sum()


def test_data_without_a_train_target_is_one_line(tmp_path):
    folder = write_dataset(prepare(log_of([["a", "b", "c"]]), 15), tmp_path)
    with pytest.raises(InputError, match="has no train target"):
        train(RUN, folder, tmp_path / "run", 1, quiet)
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
