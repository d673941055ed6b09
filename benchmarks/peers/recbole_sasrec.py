"""SASRec of RecBole as a benchmark peer: recbole_sasrec.py rate|evaluate|quality JSON.

One training sample is one prefix of a user's items (the last max_len of it) and the item after it:
one target. A step takes batch * max_len of them, so that it has as many targets as a step of
`batch` full sequences in the other libraries.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from shared import Quality, Rate, Rows, Settings, arguments, made_up, ndcg10_sum, real, say

FOREVER = 1_000_000  # epochs


def prepare(settings: Settings, rows: Rows, epochs: int) -> tuple[Config, list[SequentialDataset]]:
    """Train, valid and test prefixes by way of RecBole's file format, in the current folder.

    The library's defaults for all that the settings do not name: dropout 0.5, Adam, 0.001. The
    inner width is four times the width, as in the default 256 for 64.
    """
    lengths = [len(row) for row in rows]
    table = pd.DataFrame(
        {
            "user_id:token": np.repeat(np.arange(len(rows)), lengths),
            "item_id:token": np.concatenate(rows),
            "timestamp:float": np.concatenate([np.arange(length) for length in lengths]),
        }
    )
    Path("peer").mkdir()
    table.to_csv("peer/peer.inter", sep="\t", index=False)
    chosen = {
        "data_path": ".",
        "use_gpu": False,
        "seed": settings["seed"],
        "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "MAX_ITEM_LIST_LENGTH": settings["max_len"],
        "train_batch_size": settings["batch"] * settings["max_len"],
        "train_neg_sample_args": None,  # full softmax
        "loss_type": "CE",
        "n_layers": settings["n_layers"],
        "n_heads": settings["n_heads"],
        "hidden_size": settings["d_model"],
        "inner_size": 4 * settings["d_model"],
        "epochs": epochs,
    }
    if settings.get("learning_rate") is not None:
        chosen["learning_rate"] = settings["learning_rate"]
    config = Config(model="SASRec", dataset="peer", config_dict=chosen)
    return config, SequentialDataset(config).build()


def rate(settings: Settings) -> dict[str, object]:
    # 20 steps an epoch, all of them full: every user has max_len train prefixes of 1..max_len items.
    config, (train, _, _) = prepare(settings, made_up(settings, 20 * settings["batch"]), FOREVER)
    batches = TrainDataLoader(config, train, None, shuffle=True)
    trainer = Trainer(config, SASRec(config, train))
    targets = settings["batch"] * settings["max_len"]
    return Rate(settings["seconds"]).run(lambda: trainer.fit(batches, saved=False, verbose=False), targets)


def evaluate(settings: Settings) -> dict[str, object]:
    """Trainer.evaluate() of an untrained model: scores of all items, the best ten, NDCG@10."""
    config, (train, _, test) = prepare(settings, made_up(settings, settings["users"]), 1)
    trainer = Trainer(config, SASRec(config, train))
    batches = FullSortEvalDataLoader(config, test, None)
    trainer.eval_collector.data_collect(TrainDataLoader(config, train, None))
    begun = time.perf_counter()
    trainer.evaluate(batches, load_best_model=False)
    return {"users_per_second": len(test) / (time.perf_counter() - begun)}


class WatchedTrainer(Trainer):
    watch: Quality

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if epoch_idx == 0:
            self.watch.start()
        loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self.watch.epoch(loss / len(train_data))
        return loss


@torch.no_grad()
def valid_ndcg(model: SASRec, batches: FullSortEvalDataLoader, item_of: np.ndarray) -> float:
    """NDCG@10 of each user's valid item; item_of is recscale's id of each of RecBole's from 1."""
    model.eval()
    order = torch.from_numpy(np.argsort(item_of))
    place = torch.argsort(order)
    total = 0.0
    for prefixes, _, _, target in batches:
        scores = model.full_sort_predict(prefixes)[:, 1:]  # 0 is padding
        total += ndcg10_sum(scores[:, order], place[target - 1])
    return total / batches.sample_size


def quality(settings: Settings) -> dict[str, object]:
    rows, n_items = real(Path(settings["data"]))
    config, (train, valid, _) = prepare(settings, rows, settings["max_epochs"])
    if settings.get("users") is not None:  # RecBole numbers users from 1 in the order of the file
        train.inter_feat = train.inter_feat[train.inter_feat["user_id"] <= settings["users"]]
    item_of = np.array(train.field2id_token["item_id"][1:], dtype=np.int64)
    assert sorted(item_of) == list(range(1, n_items + 1))
    model = SASRec(config, train)
    batches = FullSortEvalDataLoader(config, valid, None)
    trainer = WatchedTrainer(config, model)
    trainer.watch = Quality(settings, lambda: valid_ndcg(model, batches, item_of))
    train_batches = TrainDataLoader(config, train, None, shuffle=True)
    return trainer.watch.run(lambda: trainer.fit(train_batches, saved=False, verbose=False))


if __name__ == "__main__":
    mode, settings = arguments()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole writes its data file, log_tensorboard/ and saved/ here
        result = {"rate": rate, "evaluate": evaluate, "quality": quality}[mode](settings)
        os.chdir("/")
    say({"library": "RecBole", "version": importlib.metadata.version("recbole"), **result})
