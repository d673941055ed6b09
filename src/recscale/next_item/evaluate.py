"""Full-ranking metrics: every item of the catalogue is scored for every user, none is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from recscale.next_item.batches import Batches
from recscale.next_item.models.decoder import Decoder
from recscale.next_item.sequences import Sequences, contexts
from recscale.study.execution import BLOCK
from recscale.train.processes import ALONE, Processes

CUTOFFS = (5, 10, 50)
SCORES = 2**25  # scores at once, at most: 128 MiB, and as much again three times while they are ranked
METRICS = (
    "loss", *(f"{name}@{k}" for name in ("HR", "NDCG") for k in CUTOFFS), "MRR", "coverage@10"
)  # fmt: skip


def metrics(
    blocks: Iterable[tuple[Tensor, Tensor]], n_items: int, processes: Processes = ALONE
) -> dict[str, float]:
    """METRICS over blocks of scores (b, n_items) and target rows (b,), each a user's next item.

    loss is mean cross-entropy in nats with scores as logits. Items a user has seen stay in the
    ranking (LSRM). Equal scores rank by item id, so a constant score does not put every target
    first. A target row of -1 (an item outside the catalogue) is a miss and has no loss.
    coverage@10: share of the catalogue found in at least one user's ten best, where torch.topk
    breaks ties in its own order.
    """
    sums = dict.fromkeys(METRICS, 0.0)
    users, with_loss = 0.0, 0.0
    shown = torch.zeros(n_items, dtype=torch.bool)
    for scores, target in blocks:
        scores, target = scores.float(), target.long()
        inside = target >= 0
        picked = scores.gather(1, target.clamp(min=0)[:, None])
        rank = ranks(scores, target)
        sums["loss"] += (scores.logsumexp(1, keepdim=True) - picked)[inside].double().sum().item()
        for k in CUTOFFS:
            hit = rank <= k
            sums[f"HR@{k}"] += hit.sum().item()
            sums[f"NDCG@{k}"] += (1 / torch.log2(rank[hit] + 1)).sum().item()
        sums["MRR"] += (1 / rank).sum().item()
        shown[scores.topk(min(10, n_items), 1).indices.flatten().cpu()] = True
        users += len(target)
        with_loss += inside.sum().item()
    names = list(sums)
    *values, users, with_loss = processes.sum([*sums.values(), users, with_loss])
    sums, shown = dict(zip(names, values, strict=True)), processes.either(shown)
    result = {name: value / (with_loss if name == "loss" else users) for name, value in sums.items()}
    result["coverage@10"] = shown.sum().item() / n_items
    return result


def ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank from 1 of target rows (b,) among scores (b, n_items), as floats; infinite where a row is -1.

    Equal scores rank by item id. A score that is not a number comes last.
    """
    picked = scores.gather(1, target.clamp(min=0)[:, None])
    after = torch.arange(scores.shape[1], device=scores.device) > target[:, None]
    # Counted from below, so that a score that is not a number comes last and not first.
    rank = scores.shape[1] - ((scores < picked) | ((scores == picked) & after)).sum(1).double()
    return rank.masked_fill(target < 0, torch.inf)


@torch.no_grad()
def evaluate(
    model: Decoder,
    data: Sequences,
    split: str,
    max_len: int,
    items: Tensor,
    processes: Processes = ALONE,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """METRICS of a model on every user's valid or test item, in float32.

    `items` is Sequences.items as a tensor on the model's device. Several processes take every n-th
    block each and all return the same. `check` is called before each block and may raise.
    """
    where, target = contexts(data, split, max_len)
    batches = Batches(where, items)
    rows = torch.from_numpy(np.where(target <= data.n_items, target - 1, -1))
    order = np.argsort(where.length, kind="stable")  # windows of one length need no padding
    users = max(1, min(BLOCK, SCORES // data.n_items))

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(processes.rank * users, len(order), processes.world * users):
            check()
            chosen = order[begin : begin + users]
            batch = batches.take(chosen)
            hidden = model(batch.inputs).flatten(0, 1)[batch.places]
            yield hidden @ model.output.T, rows[chosen].to(items.device)

    training = model.training
    model.eval()
    try:
        return metrics(blocks(), data.n_items, processes)
    finally:
        model.train(training)
