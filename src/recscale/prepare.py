"""Interactions to sequences, by the protocol of LSRM (arXiv 2311.11351, section III).

Order and ties: a user's interactions are ordered by time; interactions of the same second keep the
row order of the source file (77 % of MovieLens-1M ratings tie, so this rule is part of the data).

Split: a user with more than `withhold_above` interactions gives the last 10 to the trajectory
task. Of what remains, the last is test, the one before valid, the rest train. Every train item but
the first is a target.

Ids: users are rows by first appearance in the source; items are numbered from 1 by first
appearance, items seen outside the withheld tails (the catalogue, 1..n_items) before the others.
"""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl

from recscale.study import PREPARE_RECIPE

WITHHELD = 10  # items of the trajectory task
SHORTEST = 3  # one item to condition on, one valid, one test


def prepare(log: pl.DataFrame, withhold_above: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Sequences, items and counts of a log (user, item, rating, timestamp, domain; rows in file order).

    sequences: user, items list<int32>, timestamps list<int64> (seconds), withheld, sample_rank (the
    user's place in the nested random sample of users). items: id, item, train_count, domain.
    """
    rows = log.with_row_index("row")
    users = rows.group_by("user").agg(pl.len().alias("n"), pl.col("row").min().alias("first"))
    kept = users.filter(pl.col("n") >= SHORTEST).sort("first").with_row_index("user_row")
    ordered = (
        rows.join(kept.select("user", "user_row", "n"), on="user")
        .sort("user_row", "timestamp", "row")
        .with_columns(
            place=pl.int_range(pl.len()).over("user_row"),
            withheld=pl.when(pl.col("n") > withhold_above).then(WITHHELD).otherwise(0),
        )
        .with_columns(end=pl.col("n") - pl.col("withheld"))
    )
    seen = pl.col("place") < pl.col("end")
    train = pl.col("place") < pl.col("end") - 2
    items = (
        ordered.group_by("item")
        .agg(
            pl.col("row").min().alias("first"),
            seen.any().alias("seen"),
            train.sum().cast(pl.Int64).alias("train_count"),
            pl.col("domain").sort_by("row").first(),  # an item of several domains: where it came first
            pl.col("domain").n_unique().alias("domains"),
        )
        .sort(~pl.col("seen"), "first")
        .with_row_index("id", offset=1)
        .with_columns(pl.col("id").cast(pl.Int32))
    )
    sequences = (
        ordered.join(items.select("item", "id"), on="item")
        .sort("user_row", "place")
        .group_by("user_row", maintain_order=True)
        .agg(
            pl.col("user").first(),
            pl.col("id").alias("items"),
            pl.col("timestamp").alias("timestamps"),
            pl.col("withheld").first().cast(pl.Int32),
        )
        .drop("user_row")
    )
    sequences = sequences.with_columns(sample_rank=_sample_rank(sequences["user"]))
    stats = _counts(log, users, ordered, items)
    return sequences, items.select("id", "item", "train_count", "domain"), stats


def _sample_rank(users: pl.Series) -> pl.Series:
    """Rank of each user by a hash of its key: nested samples that no row order changes."""
    digest = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in users]
    return pl.Series(digest, dtype=pl.Binary).rank("ordinal").cast(pl.Int32) - 1


def _counts(
    log: pl.DataFrame, users: pl.DataFrame, ordered: pl.DataFrame, items: pl.DataFrame
) -> dict[str, Any]:
    short = users.filter(pl.col("n") < SHORTEST)
    n_users = len(users) - len(short)
    trajectory = ordered.filter(pl.col("place") >= pl.col("end")).height
    targets = len(ordered) - trajectory - n_users  # all but each user's first
    tied = log.select(pl.struct("user", "timestamp").is_duplicated().sum()).item()
    return {
        "recipe": PREPARE_RECIPE,
        "interactions": {
            "raw": len(log),
            "left_out": {f"user_with_fewer_than_{SHORTEST}": int(short["n"].sum())},
            "kept": len(ordered),
            "repeated_user_item_pairs": len(log) - log.select("user", "item").n_unique(),
            "tied_in_user_and_second": tied,
        },
        "users": {"raw": len(users), "kept": n_users},
        "n_items": int(items["seen"].sum()),
        "n_items_with_withheld_tails": len(items),
        "n_items_in_several_domains": int((items["domains"] > 1).sum()),
        "targets": {
            "all": targets,
            "train": targets - 2 * n_users,
            "valid": n_users,
            "test": n_users,
        },
        "trajectory_items": trajectory,
        "tie_rule": "interactions of one user and second keep the row order of the source file",
    }
