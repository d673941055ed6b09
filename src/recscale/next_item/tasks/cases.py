"""Test cases as a matrix of inputs, and what a trained model answers to them.

A task makes `Inputs` with plain array operations and hands them to `Trained.answer`, which alone runs
the model: its blocks in the precision that a training would choose here (in float32 the tasks of a large
model would take half as long as its training), the output layer in float32 and at the last item of each
input only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from recscale.next_item.evaluate import SCORES, ranks
from recscale.next_item.models.decoder import Decoder
from recscale.next_item.sequences import Ints, Sequences, contexts
from recscale.study.execution import BLOCK
from recscale.study.run import Run

TOP = 10  # length of a list of recommendations


@dataclass(frozen=True)
class Inputs:
    """Inputs of cases: items (n, T) ids, oldest first, padded right with 0; length (n,) from 1."""

    items: npt.NDArray[np.int32]
    length: Ints

    def __len__(self) -> int:
        return len(self.length)

    def take(self, cases: Ints | npt.NDArray[np.bool_]) -> Inputs:
        """The inputs of these cases."""
        return Inputs(self.items[cases], self.length[cases])

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """Which places are items of the input, and not padding: (n, T)."""
        return np.arange(self.items.shape[1]) < self.length[:, None]

    def latest(self, n: int) -> Inputs:
        """The last n items of each input."""
        length = np.minimum(self.length, n)
        places = (self.length - length)[:, None] + np.arange(min(n, self.items.shape[1]))
        items = np.take_along_axis(self.items, np.minimum(places, self.items.shape[1] - 1), axis=1)
        cut = Inputs(items, length)
        return Inputs(np.where(cut.real, items, 0), length)

    def followed_by(self, item: Ints) -> Inputs:
        """Each input with `item` (n,) after it; where it is full its oldest item goes."""
        width = self.items.shape[1]
        wider = np.pad(self.items, ((0, 0), (0, 1)))
        wider[np.arange(len(self)), self.length] = item
        return Inputs(wider, self.length + 1).latest(width)


def before_test(data: Sequences, max_len: int) -> tuple[Inputs, Ints]:
    """The last max_len items before each user's test item, and that item: (n_users,)."""
    where, target = contexts(data, "test", max_len)
    return _inputs(data, where.start, where.length, max_len), target


def before_trajectory(data: Sequences, max_len: int) -> tuple[Ints, Inputs, Ints]:
    """Users with a withheld trajectory, the last max_len items before it, and its items (n, withheld)."""
    users = np.flatnonzero(data.withheld)
    end = data.offsets[1:] - data.withheld
    length = np.minimum(end - data.offsets[:-1], max_len)
    inputs = _inputs(data, (end - length)[users], length[users], max_len)
    withheld = int(data.withheld.max(initial=0))
    return users, inputs, data.items[end[users][:, None] + np.arange(withheld)].astype(np.int64)


def _inputs(data: Sequences, start: Ints, length: Ints, max_len: int) -> Inputs:
    places = start[:, None] + np.arange(max_len)
    real = np.arange(max_len) < length[:, None]
    return Inputs(np.where(real, data.items[np.minimum(places, len(data.items) - 1)], 0), length)


@dataclass
class Trained:
    """A run that is trained, with its data and the folder they are in; counts what it is asked."""

    run: Run
    model: Decoder
    data: Sequences
    data_dir: Path
    device: str = "cpu"
    dtype: torch.dtype = torch.float32  # of the blocks
    windows: int = field(default=0)  # inputs that went through the model

    @torch.no_grad()
    def answer(self, inputs: Inputs, target: Ints | None = None, top: int = 0) -> tuple[Ints, Ints]:
        """For every case the rank of its target among all items, from 1, and the ids of the first `top`.

        Shapes (n,), 0 without targets, and (n, top). A target outside the catalogue has rank n_items + 1.
        """
        self.model.eval()
        n_items = self.data.n_items
        rank, best = np.zeros(len(inputs), np.int64), np.zeros((len(inputs), top), np.int64)
        order = np.argsort(inputs.length, kind="stable")  # inputs of one length need no padding
        size = max(1, min(BLOCK, SCORES // n_items))
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            scores = self._scores(inputs.take(chosen))
            if target is not None:
                rows = np.where(target[chosen] <= n_items, target[chosen] - 1, -1)
                found = ranks(scores, torch.from_numpy(rows).to(scores.device))
                rank[chosen] = found.clamp(max=n_items + 1).long().cpu().numpy()
            best[chosen] = scores.topk(top, 1).indices.cpu().numpy() + 1
        self.windows += len(inputs)
        return rank, best

    def _scores(self, inputs: Inputs) -> Tensor:
        """Scores of all items after each input: (n, n_items)."""
        items = torch.from_numpy(inputs.items[:, : inputs.length.max()]).to(self.device)
        last = torch.from_numpy(inputs.length - 1).to(self.device)
        with torch.autocast(self.device, torch.bfloat16, self.dtype == torch.bfloat16):
            hidden = self.model(items)[torch.arange(len(last), device=last.device), last]
        scores: Tensor = hidden.float() @ self.model.output.T
        return scores


@dataclass(frozen=True)
class Outcome:
    """What a task found out: a row a case, with its cell and its values.

    The cell of a row is `group`, `x` (a number, or NaN) and `noise` (its seed; 0: none); `user` is a row of
    sequences.parquet and stands once in a cell. All other columns are values between 0 and 1. `coverage`
    has the cell and `coverage@10`, which is of a cell and not of a case.
    """

    cases: pd.DataFrame
    coverage: pd.DataFrame | None = None


CELL = ["group", "x", "noise"]


def ranked(
    users: Ints, group: str | npt.NDArray[np.str_], rank: Ints, x: float = np.nan, noise: int = 0
) -> pd.DataFrame:
    """Cases with the two values of a rank (n,): HR@10, and NDCG@10 = 1 / log2(rank + 1) up to rank 10."""
    hit = rank <= TOP
    gain = np.where(hit, 1 / np.log2(rank + 1.0), 0.0)
    cell = {"group": group, "x": float(x), "noise": noise}
    values = {"HR@10": hit.astype(np.float32), "NDCG@10": gain.astype(np.float32)}
    return pd.DataFrame({"user": users.astype(np.int32), **cell, **values})
