"""The k-core of a log: the largest part in which every user and every item has k interactions or more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.uint32]


def save(folder: Path, number: int, users: Codes, items: Codes, places: Places) -> None:
    """One partition: a user, an item and the place of the row where they stand, for each row."""
    with (folder / f"pairs-{number}").open("wb") as file:
        for array in (users, items, places):
            np.save(file, array)


def load(folder: Path, number: int) -> tuple[Codes, Codes, Places]:
    """What was saved last."""
    with (folder / f"pairs-{number}").open("rb") as file:
        users, items, places = (np.load(file) for _ in range(3))
    return users, items, places


def core(folder: Path, partitions: int, n_items: int, k: int) -> None:
    """Leave of every saved partition only the rows that are in the k-core.

    Users and items are codes from 0; users are numbered within their partition and no user is in two.
    Each round takes away what has too few, until a round takes nothing. Rounds see partition after
    partition, and the order does not matter: the k-core is unique.
    """
    counts = np.zeros(n_items, np.int64)
    for number in range(partitions):
        counts += np.bincount(load(folder, number)[1], minlength=n_items)
    done = False
    while not done:
        enough, counts, done = counts >= k, np.zeros(n_items, np.int64), True
        for number in range(partitions):
            users, items, places = load(folder, number)
            kept = np.flatnonzero(enough[items])
            of_user = np.bincount(users[kept])
            kept = kept[of_user[users[kept]] >= k] if len(kept) else kept
            if len(kept) < len(users):
                done = False
                users, items, places = users[kept], items[kept], places[kept]
                save(folder, number, users, items, places)
            counts += np.bincount(items, minlength=n_items)
