"""Inputs, users and models that the tests of the tasks share."""

import numpy as np
import torch
from torch import nn

from conftest import log_of, prepared
from recscale.next_item import sequences
from recscale.next_item.models.decoder import Decoder
from recscale.next_item.tasks.cases import Inputs, Trained
from runs import run_of


def inputs_of(rows, width=7):
    items = np.zeros((len(rows), width), np.int32)
    for place, row in enumerate(rows):
        items[place, : len(row)] = row
    return Inputs(items, np.array([len(row) for row in rows]))


def rows_of(inputs):
    for row, n in zip(inputs.items, inputs.length, strict=True):
        assert not row[n:].any()  # padding
    return [row[:n].tolist() for row, n in zip(inputs.items, inputs.length, strict=True)]


def trained_on(folder, max_len=12, seed=0, **settings):
    """A random model on the data of a folder."""
    data = sequences.load(folder)
    torch.manual_seed(seed)
    run = run_of("x", 2, 8, 0.1, n_heads=2, max_len=max_len, stride=max_len, **settings)
    return Trained(run, Decoder(data.n_items, 2, 8, 2, max_len), data, folder)


class Successor(nn.Module):
    """Scores item i + 1 highest after item i, then i + 2, ...: lists one can write down."""

    def __init__(self, n_items):
        super().__init__()
        place = torch.arange(n_items)
        self.output = -((place[:, None] - place) % n_items).float()
        self.n_items = n_items

    def forward(self, items):
        return nn.functional.one_hot(items.long() % self.n_items, self.n_items).float()


def successor(folder, **settings):
    data = sequences.load(folder)
    return Trained(run_of("x", 1, 8, 0.1, **settings), Successor(data.n_items), data, folder)


def long_users(folder):
    """Users of 5 to 90 items in loops over 40, half of them long enough for cold start."""
    rng = np.random.default_rng(1)
    histories = [(rng.integers(40) + np.arange(n) * rng.integers(1, 3)) % 40 for n in rng.integers(5, 90, 60)]
    prepared(log_of(histories), folder)
    return folder
