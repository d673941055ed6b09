"""Runs that tests make, and their training."""

from recscale.next_item.problem import NextItem
from recscale.study.run import Run
from recscale.train import train as module


def run_of(dataset, n_layers, d_model, learning_rate, **keys):
    """A decoder's run by its four keys without a default, and others by name."""
    return Run.of(dataset=dataset, n_layers=n_layers, d_model=d_model, learning_rate=learning_rate, **keys)


def train(run, folder, *args, **more):
    """Train a run on the prepared data of a folder, as `recscale train` does."""
    module.train(run, NextItem.load(run, folder), *args, **more)
