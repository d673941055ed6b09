"""The loop trains what it does not know: made-up clicks, a label a row, a linear model of two fields."""

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from recscale.errors import Interrupted
from recscale.train.loop import Trainer
from recscale.train.problem import Problem
from recscale.train.train import train
from runs import run_of

RUN = run_of("clicks", 1, 8, 0.05, epochs=3, batch_size=16)  # only its course and its seed are looked at
ROWS, FIELDS = 400, (7, 5)


class Clicks(Problem):
    """Rows of two fields; the log-odds of a click are a sum of a weight a value."""

    headline = "NE"

    def __init__(self, run):
        self.run, self.sha256 = run, "made up"
        rng = np.random.default_rng(0)
        self.fields = np.stack([rng.integers(size, size=ROWS) for size in FIELDS], axis=1)
        self.label = (rng.random(ROWS) < 1 / (1 + np.exp(2 - self.fields[:, 0]))).astype(np.float32)

    def build(self, how, processes):
        torch.manual_seed(self.run.seed)
        self.model = nn.ModuleList(nn.Embedding(size, 1) for size in FIELDS)
        model, loss = self.model, nn.functional.binary_cross_entropy_with_logits

        class Objective(nn.Module):
            def forward(self, fields, label):
                logits = sum(table(fields[:, k])[:, 0] for k, table in enumerate(model))
                return loss(logits, label, reduction="sum")

        self.objective = Objective()

    def __len__(self):
        return ROWS - 100  # the last are valid and test

    def order(self, epoch):
        return np.random.default_rng([self.run.seed, epoch]).permutation(len(self))

    def targets(self, chosen):
        return len(chosen)

    positions = targets

    def take(self, chosen):
        return torch.from_numpy(self.fields[chosen]), torch.from_numpy(self.label[chosen])

    @torch.no_grad()
    def evaluate(self, split, processes, check):
        check()
        rows = np.arange(300, 350) if split == "valid" else np.arange(350, 400)
        loss, rate = self.objective(*self.take(rows)).item() / len(rows), self.label[rows].mean()
        return {"loss": loss, "NE": loss / float(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))}

    def epoch(self):
        return len(self), len(self)

    def flops(self, positions, targets):
        return 6 * len(FIELDS) * positions

    def counts(self):
        n = sum(p.numel() for p in self.model.parameters())
        return {"N": n, "N_total": n, "D": len(self)}


def trained(out, said=print):
    train(RUN, Clicks(RUN), out, 1, said)
    point = json.loads((out / "metrics.json").read_text())
    return point, (out / "model.safetensors").read_bytes()


def test_a_problem_that_train_does_not_know_is_trained(tmp_path):
    said = []
    point, _ = trained(tmp_path / "run", said.append)
    losses = [epoch["valid"]["loss"] for epoch in point["epochs"]]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (point["D"], point["D_seen"], point["N"]) == (300, 900, sum(FIELDS))
    assert point["C"] == 6 * 2 * 900
    assert any(" NE 0." in line or " NE 1." in line for line in said)


@pytest.mark.parametrize("step", [1, 19, 30, 56])
def test_it_is_stopped_and_resumed_to_the_same_bits(tmp_path, monkeypatch, step):
    whole, weights = trained(tmp_path / "whole")
    true, steps = Trainer._gradients, []

    def killed(self, chosen):
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), 15)  # is heard between two steps
        return true(self, chosen)

    monkeypatch.setattr(Trainer, "_gradients", killed)
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut")
    monkeypatch.undo()
    point, same = trained(tmp_path / "cut")
    assert same == weights
    for key in ("test", "chosen_epoch", "D_seen", "C"):
        assert point[key] == whole[key]
    assert [row["valid"] for row in point["epochs"]] == [row["valid"] for row in whole["epochs"]]
