"""Trajectory: how far into a user's future does a prediction hold?

Users with ten withheld items are asked for these after all their other items: `greedy` predicts one item at
a time and takes it into the input, `one shot` is the first list of ten. For j = 1 to 10 the first j predicted
are compared with the first j that were withheld; seen and already predicted items are not excluded.
HR is the share of the j that is in both sets, NDCG takes predicted items in that set as gains of 1 over the
gain of j hits, BLEU is the sentence score with n-grams up to min(4, j), evenly weighted; `distinct` is the
share of the j predicted that are no repetition (LSRM, section V; its released function does not run).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recscale.errors import InputError
from recscale.next_item.sequences import Ints
from recscale.next_item.tasks.cases import TOP, Inputs, Outcome, Trained, before_trajectory

GREEDY, ONE_SHOT = "greedy", "one shot"
Floats = npt.NDArray[np.float64]


def trajectory(trained: Trained) -> Outcome:
    """Cases by how they were predicted, x is j; values HR, NDCG, BLEU, distinct.

    Raises InputError where no user has a withheld trajectory, or the catalogue has fewer items.
    """
    users, inputs, true = before_trajectory(trained.data, trained.run.windows.max_len)
    if not len(users):
        raise InputError(f"{trained.data_dir}: no user has withheld items (withhold_above of the dataset)")
    if trained.data.n_items < TOP:
        raise InputError(f"{trained.data_dir}: the catalogue has fewer than {TOP} items")
    first, steps = predict(trained, inputs, true.shape[1])
    parts = []
    for name, predicted in ((GREEDY, steps), (ONE_SHOT, first)):
        for j in range(1, true.shape[1] + 1):
            values = scores(predicted[:, :j], true[:, :j])
            cell = {"user": users.astype(np.int32), "group": name, "x": float(j), "noise": 0}
            parts.append(pd.DataFrame(cell | {k: v.astype(np.float32) for k, v in values.items()}))
    return Outcome(pd.concat(parts))


def predict(trained: Trained, inputs: Inputs, n: int) -> tuple[Ints, Ints]:
    """The first list of n, and n items predicted one after the other: (cases, n) ids each."""
    _, best = trained.answer(inputs, top=n)
    steps = [best[:, 0]]
    while len(steps) < n:
        inputs = inputs.followed_by(steps[-1])
        steps.append(trained.answer(inputs, top=1)[1][:, 0])
    return best, np.stack(steps, axis=1)


def scores(predicted: Ints, true: Ints) -> dict[str, Floats]:
    """HR, NDCG, BLEU and distinct of (cases, j) predicted items against as many true ones: (cases,) each.

    An item predicted twice counts once.
    """
    j = predicted.shape[1]
    new = _earlier(predicted[:, :, None] == predicted[:, None, :]) == 0
    hit = new & (predicted[:, :, None] == true[:, None, :]).any(axis=2)
    discount = 1 / np.log2(np.arange(j) + 2.0)
    ndcg = hit @ discount / discount.sum()
    return {"HR": hit.mean(axis=1), "NDCG": ndcg, "BLEU": bleu(predicted, true), "distinct": new.mean(axis=1)}


def bleu(predicted: Ints, true: Ints) -> Floats:
    """Sentence BLEU (Papineni et al. 2002): the geometric mean of the n-gram precisions, n to min(4, j).

    Matches are clipped to how often an n-gram is in the truth. Smoothing: for n > 1 one is added to the
    matches and to the n-grams (Lin and Och 2004, ORANGE); without a single common item the score is 0.
    Both have j items, so there is no brevity penalty.
    """
    j = predicted.shape[1]
    common = predicted[:, :, None] == true[:, None, :]  # of n-grams: ours that begins at p, theirs at q
    again = predicted[:, :, None] == predicted[:, None, :]
    items, own = common, again
    orders = range(1, min(4, j) + 1)
    total = np.zeros(len(predicted))
    for n in orders:
        if n > 1:
            common = common[:, :-1, :-1] & items[:, n - 1 :, n - 1 :]
            again = again[:, :-1, :-1] & own[:, n - 1 :, n - 1 :]
        matches = (_earlier(again) < common.sum(axis=2)).sum(axis=1)
        smooth = 1 if n > 1 else 0
        with np.errstate(divide="ignore"):
            total += np.log((matches + smooth) / (j - n + 1 + smooth))
    result: Floats = np.exp(total / len(orders))
    return result


def _earlier(same: npt.NDArray[np.bool_]) -> Ints:
    """How many places before each have the same, (cases, m); `same` (cases, m, m) says which have."""
    count: Ints = (same & np.tri(same.shape[1], k=-1, dtype=bool)).sum(axis=2)
    return count
