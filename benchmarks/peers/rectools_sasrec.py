"""SASRec of RecTools as a benchmark peer: rectools_sasrec.py rate|evaluate|quality JSON.

One training sample is a user's last max_len + 1 items, which is max_len targets: what is older is
never trained on. So a step of `batch` full sequences has batch * max_len targets, and an epoch over
MovieLens-1M fewer targets than recscale's.
"""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from shared import Quality, Rate, Rows, Settings, arguments, made_up, ndcg10_sum, real, say

FOREVER = 1_000_000  # epochs


def dataset(rows: Rows) -> Dataset:
    """Users 0.. with their items in order, one a second."""
    lengths = [len(row) for row in rows]
    seconds = np.concatenate([np.arange(length) for length in lengths])
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: np.repeat(np.arange(len(rows)), lengths),
                Columns.Item: np.concatenate(rows),
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(seconds, unit="s"),
            }
        )
    )


def trainer(max_epochs: int, max_steps: int = -1, callbacks: list[Callback] | None = None) -> Trainer:
    """The trainer that RecTools makes by default, but for callbacks and a limit of steps."""
    return Trainer(
        max_epochs=max_epochs,
        max_steps=max_steps,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        devices=1,
        accelerator="cpu",
    )


def sasrec(settings: Settings, trainer: Trainer) -> SASRecModel:
    """The library's defaults for all that the settings do not name (dropout 0.2, Adam, 0.001)."""
    rate = settings.get("learning_rate")
    model = SASRecModel(
        n_blocks=settings["n_layers"],
        n_factors=settings["d_model"],
        n_heads=settings["n_heads"],
        session_max_len=settings["max_len"],
        batch_size=settings["batch"],
        loss="softmax",
        **({} if rate is None else {"lr": rate}),
    )
    model._trainer = trainer  # the way that its documentation names
    return model


def rate(settings: Settings) -> dict[str, object]:
    # 20 steps an epoch, all of them full: every user has max_len + 1 train items.
    train = dataset([row[:-2] for row in made_up(settings, 20 * settings["batch"])])
    model = sasrec(settings, trainer(FOREVER))
    targets = settings["batch"] * settings["max_len"]
    return Rate(settings["seconds"]).run(lambda: model.fit(train), targets)


def evaluate(settings: Settings) -> dict[str, object]:
    """recommend() of the best ten of all items, after one step of training."""
    data = dataset([row[:-1] for row in made_up(settings, settings["users"])])
    model = sasrec(settings, trainer(1, max_steps=1))
    model.fit(data)
    model.recommend(np.arange(64), data, k=10, filter_viewed=False)  # warm-up
    begun = time.perf_counter()
    model.recommend(np.arange(settings["users"]), data, k=10, filter_viewed=False)
    return {"users_per_second": settings["users"] / (time.perf_counter() - begun)}


class AfterEpoch(Callback):
    def __init__(self, watch: Quality) -> None:
        self.watch = watch

    def __deepcopy__(self, memo: object) -> AfterEpoch:  # RecTools copies its trainer
        return self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.epoch(float(trainer.callback_metrics["train_loss"]))
        pl_module.train()


def valid_ndcg(model: SASRecModel, data: Dataset, target: torch.Tensor, n_items: int) -> float:
    """NDCG@10 of each user's valid item. Items that were never trained on score -inf, as misses."""
    prepared = model.data_preparator.transform_dataset_u2i(data, np.arange(len(target)))
    batches = model.data_preparator.get_dataloader_recommend(prepared, model.recommend_batch_size)
    users, items = model.lightning_model._get_user_item_embeddings(batches, "cpu")
    known = torch.from_numpy(model.data_preparator.get_known_item_ids().astype(np.int64)) - 1
    extra = model.data_preparator.n_item_extra_tokens
    who = torch.from_numpy(prepared.user_id_map.external_ids.astype(np.int64))
    total = 0.0
    for begin in range(0, len(who), 512):
        scores = torch.full((len(who[begin : begin + 512]), n_items), -torch.inf)
        scores[:, known] = users[begin : begin + 512] @ items[extra:].T
        total += ndcg10_sum(scores, target[who[begin : begin + 512]])
    return total / len(target)


def quality(settings: Settings) -> dict[str, object]:
    rows, n_items = real(Path(settings["data"]))
    target = torch.tensor([int(row[-2]) - 1 for row in rows])
    data = dataset([row[:-2] for row in rows])
    train = dataset([row[:-2] for row in rows[: settings.get("users")]])
    watch = Quality(settings, lambda: valid_ndcg(model, data, target, n_items))
    model = sasrec(settings, trainer(settings["max_epochs"], callbacks=[AfterEpoch(watch)]))
    return watch.run(lambda: model.fit(train))


if __name__ == "__main__":
    mode, settings = arguments()
    result = {"rate": rate, "evaluate": evaluate, "quality": quality}[mode](settings)
    say({"library": "RecTools", "version": importlib.metadata.version("rectools"), **result})
