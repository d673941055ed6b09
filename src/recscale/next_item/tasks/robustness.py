"""Robustness: how much is lost when the input is disturbed?

Each item of the input is disturbed with probability eta, half of the disturbed ones are replaced by an item
drawn evenly from the catalogue, and the other half are overwritten in place by id 0, which is attended like
any item and not masked (LSRM, section V; eta 0.3 there). `closed up` is a variant of our own: the same draws,
but the second half is taken out and the sequence closed up; the last item stays where none would be left.
The drop is the share of the undisturbed value that is lost. Id 0 is padding, so training does not move its
vector, but for weight decay: it is the one of the start.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recscale.next_item.tasks.cases import Inputs, Outcome, Trained, before_test, ranked

NOISE = ((0.1, 1), (0.2, 1), (0.3, 1), (0.3, 2), (0.3, 3), (0.4, 1), (0.5, 1))  # eta, seed
CLEAN, OVERWRITTEN, CLOSED_UP = "clean", "overwritten", "closed up"


def robustness(trained: Trained) -> Outcome:
    """Cases by what was done to the input, x is eta, `noise` the seed of the draws; `clean` has x = 0."""
    inputs, target = before_test(trained.data, trained.run.windows.max_len)
    users = np.arange(len(target))
    parts = [ranked(users, CLEAN, trained.answer(inputs, target)[0], 0.0)]
    for eta, seed in NOISE:
        chance, items = draws(inputs, trained.data.n_items, seed)
        for name, disturbed in (
            (OVERWRITTEN, overwrite(inputs, eta, chance, items)),
            (CLOSED_UP, close_up(inputs, eta, chance, items)),
        ):
            parts.append(ranked(users, name, trained.answer(disturbed, target)[0], eta, seed))
    return Outcome(pd.concat(parts))


def draws(inputs: Inputs, n_items: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """A number in [0, 1) and an item id for every place: (n, T) each. All runs on one data get the same."""
    rng, shape = np.random.default_rng(seed), inputs.items.shape
    return rng.random(shape), rng.integers(1, n_items + 1, shape, dtype=np.int32)


def overwrite(
    inputs: Inputs, eta: float, chance: npt.NDArray[np.float64], items: npt.NDArray[np.int32]
) -> Inputs:
    """A place of chance below eta/2 is replaced by the drawn item, from there to eta by 0."""
    changed = np.where(chance < eta / 2, items, np.where(chance < eta, 0, inputs.items))
    return Inputs(np.where(inputs.real, changed, 0).astype(np.int32), inputs.length)


def close_up(
    inputs: Inputs, eta: float, chance: npt.NDArray[np.float64], items: npt.NDArray[np.int32]
) -> Inputs:
    """The same, but from eta/2 to eta places are taken out; the last item stays where all would go."""
    kept = inputs.real & ((chance < eta / 2) | (chance >= eta))
    empty = ~kept.any(axis=1)
    kept[empty, inputs.length[empty] - 1] = True
    changed = np.where(chance < eta / 2, items, inputs.items)
    order = np.argsort(~kept, axis=1, kind="stable")
    closed = Inputs(np.take_along_axis(changed, order, axis=1), kept.sum(axis=1))
    return Inputs(np.where(closed.real, closed.items, 0).astype(np.int32), closed.length)
