"""Cold-start users: how well is a user served of whom only the last few items are known?

For users with 50 items or more before their test item that item is predicted six times, from their last
50, 40, 30, 20, 10 and 5 items. Users that the run was trained on and users that it never saw (a run on a
share of the users or of the time leaves others out, but for the choice of the epoch, which is by the valid
items of all) are told apart. coverage@10 is the share of the catalogue in any of the lists of ten (LSRM,
section V-C; its released code has held-out users only).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from recscale.errors import InputError
from recscale.next_item.sequences import train_users
from recscale.next_item.tasks.cases import TOP, Outcome, Trained, before_test, ranked

LENGTHS = (50, 40, 30, 20, 10, 5)
SEEN, UNSEEN = "in training", "held out"


def cold_start(trained: Trained) -> Outcome:
    """Cases by whether the user was in training, x the items of the input; LENGTHS up to max_len.

    Raises InputError where no user is long enough.
    """
    data, run = trained.data, trained.run
    users = np.flatnonzero(data.train_length + 1 >= LENGTHS[0])
    if not len(users):
        raise InputError(f"{trained.data_dir}: no user has {LENGTHS[0]} items before the test item")
    inputs, target = before_test(data, run.windows.max_len)
    inputs, target = inputs.take(users), target[users]
    # A share of the time leaves users out too: those with no target in it.
    seen = (
        data.since(run.sample.data_fraction) > 1 if run.sample.data_axis == "time" else train_users(data, run)
    )
    group = np.where(seen[users], SEEN, UNSEEN)
    parts, coverage = [], []
    for n in (n for n in LENGTHS if n <= run.windows.max_len):
        rank, best = trained.answer(inputs.latest(n), target, min(TOP, data.n_items))
        parts.append(ranked(users, group, rank, n))
        for name in np.unique(group):
            shown = len(np.unique(best[group == name]))
            share = {f"coverage@{TOP}": shown / data.n_items}
            coverage.append({"group": name, "x": n, "noise": 0, **share})
    return Outcome(pd.concat(parts), pd.DataFrame(coverage))
