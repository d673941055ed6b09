"""What is in the data: the numbers of card.json, from a prepared dataset folder alone.

Every number is of all interactions in sequences.parquet: train, valid, test and withheld. Entropies are
in nats, times in seconds, days in UTC. What each number means and how far to trust it: docs/data.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.optimize

from recscale import files
from recscale.errors import InputError
from recscale.next_item import sequences
from recscale.next_item.sequences import UNKNOWN, Ints

YEARS_1900_TO_2199 = (-2_208_988_800, 7_258_118_400)  # seconds: outside are other units
ORDER_ONLY = "order only: the log has no timestamps"
ZIPF = "maximum likelihood of p(rank) ~ rank^-slope over all ranks, items ranked by their count"
BIAS = (
    "plug-in estimates are too low, the more so the more pairs were seen once; miller_madow adds the first "
    "order of that bias only, so it is too low as well"
)


@dataclass(frozen=True)
class Histories:
    """All users' interactions, one after the other; user u owns items[offsets[u] : offsets[u + 1]]."""

    items: npt.NDArray[np.int32]  # ids from 1
    offsets: Ints
    time: Ints  # seconds since 1970, not falling within a user; UNKNOWN where there is none

    @property
    def length(self) -> Ints:
        """Interactions of each user."""
        return np.diff(self.offsets)

    @property
    def user(self) -> Ints:
        """The user of each interaction."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.length)

    @property
    def place(self) -> Ints:
        """The place of each interaction in its user's history, from 0."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.length)


def card(data: Path) -> tuple[Histories, dict[str, Any]]:
    """The log of the prepared folder `data`, and the content of its card.json.

    Raises InputError where a file is missing or damaged.
    """
    stats = files.read_json(data / "stats.json", "n_items")
    log, domains = histories(data)
    content = {
        "dataset": stats.get("dataset", data.resolve().name),
        "sha256": files.sha256(data / "sequences.parquet"),
        "units": {"entropy": "nats", "gap": "seconds", "day": "UTC"},
        "n_items_catalogue": stats["n_items"],
        **describe(log),
        "domains": None,
    }
    if domains.notna().any():
        content["domains"] = {name: describe(part) for name, part in by_domain(log, domains)}
    return log, content


# --- input ---


def histories(folder: Path) -> tuple[Histories, pd.Series]:
    """The log of a prepared folder, and the domain of each item (None: it has none), by id."""
    items = files.read_table(folder / "items.parquet", "id", "domain").sort_values("id")
    if not np.array_equal(items["id"], np.arange(1, len(items) + 1)):
        raise InputError(f"{folder / 'items.parquet'}: ids are not 1 to {len(items)}, each once")
    path = folder / "sequences.parquet"
    rows = sequences.read(path, seconds=True)
    if not len(rows.items):
        raise InputError(f"{path}: it has no interactions")
    seconds = rows.seconds[rows.seconds != UNKNOWN]
    begin, end = YEARS_1900_TO_2199
    if ((seconds < begin) | (seconds >= end)).any():
        raise InputError(f"{path}: timestamps: are not seconds since 1970: years are not from 1900 to 2199")
    low, high = int(rows.items.min()), int(rows.items.max())
    if low < 1 or high > len(items):
        raise InputError(f"{path}: has item ids {low} to {high}, items.parquet has 1 to {len(items)}")
    return Histories(rows.items, rows.offsets, rows.seconds), items["domain"].reset_index(drop=True)


def by_domain(log: Histories, domains: pd.Series) -> Iterator[tuple[str, Histories]]:
    """Each domain and the log of its interactions alone, of the users who have any."""
    code, names = pd.factorize(domains.fillna("(no domain)"))
    code = code.astype(np.min_scalar_type(len(names)))  # 16 bits or fewer sort by counting
    of, user = code[log.items - 1], log.user
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(np.bincount(of, minlength=len(names)))
    for name, begin, end in zip(names, [0, *ends], ends, strict=False):
        part = order[begin:end]
        if len(part):
            first = np.flatnonzero(np.diff(user[part], prepend=-1))
            yield str(name), Histories(log.items[part], np.append(first, len(part)), log.time[part])


# --- numbers ---


def describe(log: Histories) -> dict[str, Any]:
    """The numbers of a log, as in card.json."""
    counts = item_counts(log)
    return {
        "users": len(log.length),
        "items": len(counts),
        "interactions": len(log.items),
        "lengths": lengths(log),
        "popularity": {
            "zipf": zipf(counts),
            "gini": gini(counts),
            "top_1_percent": top_share(counts, 1),
            "top_10_percent": top_share(counts, 10),
        },
        "time": times(log),
        "repeat_rate": float(repeated(log).mean()),
        "entropy": {"unigram": entropy(counts), "conditional": conditional(log), "note": BIAS},
        "approximate_entropy": approximate_entropy(log),
    }


def lengths(log: Histories) -> dict[str, float]:
    """Interactions a user: mean, extremes and quantiles (linear between order statistics)."""
    at = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99, "max": 1.0}
    values = np.quantile(log.length, list(at.values()))
    return {"mean": float(log.length.mean())} | dict(zip(at, map(float, values), strict=True))


def item_counts(log: Histories) -> Ints:
    """Interactions of each item that has any, the most frequent first."""
    counts = np.bincount(log.items)
    return np.sort(counts[counts > 0])[::-1]


def zipf(counts: Ints) -> dict[str, Any]:
    """Slope s of p(rank) = rank^-s / sum(rank^-s) by maximum likelihood over all ranks, None for one item.

    `distance` is the largest difference between the cumulative shares of data and law (Kolmogorov-Smirnov;
    Clauset, Shalizi and Newman, arXiv 0706.1062, judge power laws by it).
    """
    rank = np.log(np.arange(1, len(counts) + 1))
    mean = counts @ rank / counts.sum()

    def excess(slope: float) -> float:  # its zero is the maximum: it falls with the slope
        weight = np.exp(-slope * rank)
        return float(weight @ rank / weight.sum() - mean)

    result: dict[str, Any] = {"slope": None, "distance": None, "ranks": len(counts), "estimator": ZIPF}
    if len(counts) == 1:
        return result
    high = 1.0
    while excess(high) > 0:
        high *= 2
    slope = scipy.optimize.brentq(excess, 0, high) if excess(0) > 0 else 0.0  # 0: counts are all the same
    law = np.cumsum(np.exp(-slope * rank))
    distance = np.abs(np.cumsum(counts) / counts.sum() - law / law[-1]).max()
    return result | {"slope": float(slope), "distance": float(distance)}


def gini(counts: Ints) -> float:
    """Gini coefficient of counts in falling order: 0 where all are the same, near 1 where one has all."""
    n = len(counts)
    return float((n + 1 - 2 * (np.arange(1, n + 1) @ counts) / counts.sum()) / n)


def top_share(counts: Ints, percent: int) -> float:
    """Share of the interactions that the first `percent` % of the items (rounded up) have."""
    n = -(-percent * len(counts) // 100)
    return float(counts[:n].sum() / counts.sum())


def gaps(log: Histories) -> Ints:
    """Seconds between an interaction and the one before of the same user, where both have a time."""
    follows = _follows(log)
    return log.time[1:][follows] - log.time[:-1][follows]


def _follows(log: Histories) -> npt.NDArray[np.bool_]:
    """(n - 1,): the next interaction is of the same user and has a time (then this one has one too)."""
    follows: npt.NDArray[np.bool_] = (log.place[1:] > 0) & (log.time[1:] != UNKNOWN)
    return follows


def times(log: Histories) -> dict[str, Any]:
    """First and last day, median gaps, and ties: the share of interactions with a time that share user and
    second with another one. None, with a `reason`, where there is no time or no gap.
    """
    known = log.time != UNKNOWN
    names = ("first_day", "last_day", "median_gap", "median_gap_above_0", "ties")
    result: dict[str, Any] = dict.fromkeys(names)
    result |= {"interactions_without_time": int((~known).sum()), "reason": None}
    if not known.any():
        return result | {"reason": ORDER_ONLY}
    tied = np.zeros(len(known), bool)
    gap = gaps(log)
    before = np.flatnonzero(_follows(log))[gap == 0]
    tied[before] = tied[before + 1] = True
    day = np.array([log.time[known].min(), log.time[known].max()]).astype("M8[s]").astype("M8[D]")
    result |= {"first_day": str(day[0]), "last_day": str(day[1]), "ties": float(tied[known].mean())}
    if not len(gap):
        return result | {"reason": "no gap: no user has two interactions with a time"}
    above = gap[gap > 0]
    result["median_gap_above_0"] = float(np.median(above)) if len(above) else None
    return result | {"median_gap": float(np.median(gap))}


def repeated(log: Histories) -> npt.NDArray[np.bool_]:
    """(n,): the same user had this item before."""
    _, first = np.unique(log.user * (int(log.items.max()) + 1) + log.items, return_index=True)
    result = np.ones(len(log.items), bool)
    result[first] = False
    return result


def entropy(counts: Ints) -> dict[str, float]:
    """Entropy in nats of shares known by their counts: plug-in, and corrected by (kinds - 1) / (2 n).

    The correction: Miller, Note on the bias of information estimates, 1955.
    """
    n = counts.sum()
    plug_in = max(0.0, float(np.log(n) - counts @ np.log(counts) / n))
    return {"plug_in": plug_in, "miller_madow": plug_in + float((len(counts) - 1) / (2 * n))}


def conditional(log: Histories) -> dict[str, Any]:
    """H(next item | item) in nats over all steps inside users: entropy of pairs less that of their firsts."""
    inside = log.place[1:] > 0
    here, after = log.items[:-1][inside].astype(np.int64), log.items[1:][inside]
    result: dict[str, Any] = {"plug_in": None, "miller_madow": None, "steps": len(here)}
    if not len(here):
        return result | {"pairs": 0, "pairs_seen_once": 0}
    pairs = np.sort(here * (int(log.items.max()) + 1) + after)
    counts = np.diff(np.flatnonzero(np.diff(pairs, prepend=-1)), append=len(pairs))
    firsts = np.bincount(here)
    both, first = entropy(counts), entropy(firsts[firsts > 0])
    result |= {key: max(0.0, both[key] - first[key]) for key in both}
    return result | {"pairs": len(counts), "pairs_seen_once": int((counts == 1).sum())}


def approximate_entropy(log: Histories, m: int = 2, last: int = 50) -> dict[str, Any]:
    """Approximate entropy in nats as in the Performance Law (arXiv 2412.00430), mean over users.

    Of a user's last `last` items: phi(k) is the mean over windows of k items of the log of the share of
    windows that match (itself included); the value is |phi(m) - phi(m + 1)|. Windows match when no item
    differs by more than r; ids are whole numbers, so r = 0.2 and any r in [0, 1) asks for equal items, and
    matches are counted, not compared pair by pair. Users with fewer than m + 1 items are left out.
    """
    length = np.minimum(log.length, last)
    chosen = length > m
    length = length[chosen]
    result: dict[str, Any] = {"mean": None, "m": m, "r": 0.2, "last_items": last, "users": len(length)}
    result |= {"users_left_out": int((~chosen).sum()), "users_without_match": 0}
    if not len(length):
        return result
    user = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(user)) - np.repeat(np.cumsum(length) - length, length)
    items = log.items[(log.offsets[1:][chosen] - length)[user] + place].astype(np.int64)
    left, base, code = length[user] - place, int(items.max()) + 1, user.copy()
    phi = []
    for k in range(1, m + 2):
        at = np.flatnonzero(left >= k)  # where a window of k items begins; code: of its first k - 1
        window = code[at] * base + items[at + k - 1]
        _, code[at], count = np.unique(window, return_inverse=True, return_counts=True)
        if k >= m:
            matches = np.bincount(user[at], np.log(count)[code[at]])
            phi.append(matches / (length - k + 1) - np.log(length - k + 1))
            if k == m:
                result["users_without_match"] = int((matches == 0).sum())
    return result | {"mean": float(np.abs(phi[0] - phi[1]).mean())}
