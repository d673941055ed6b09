"""Every number of the card against a plain version of its definition, and an example by hand."""

import json
import math
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import log_of, made_up, prepare, write_dataset
from recscale.cli import main as cli
from recscale.errors import InputError
from recscale.next_item import card


def log(histories, seconds=None):
    offsets = np.cumsum([0, *map(len, histories)])
    items = np.array([item for history in histories for item in history], np.int32)
    time = np.full(len(items), card.UNKNOWN) if seconds is None else np.concatenate(seconds).astype(np.int64)
    return card.Histories(items, offsets, time)


histories = st.lists(st.lists(st.integers(1, 5), max_size=9), min_size=1, max_size=6).filter(any)


def falling(least):
    counts = st.lists(st.integers(1, 50), min_size=least, max_size=30)
    return counts.map(lambda found: np.array(sorted(found, reverse=True)))


# --- lengths and popularity ---


def test_lengths_by_hand():
    result = card.lengths(log([[1], [1] * 2, [1] * 3, [1] * 10]))
    assert result["mean"] == 4
    assert (result["min"], result["q25"], result["median"], result["q75"]) == (1, 1.75, 2.5, 4.75)
    assert (result["q90"], result["max"]) == (pytest.approx(7.9), 10)


@given(histories)
def test_item_counts(items):
    counted = Counter(item for history in items for item in history)
    assert card.item_counts(log(items)).tolist() == sorted(counted.values(), reverse=True)


def test_gini_and_top_shares_by_hand():
    assert card.gini(np.array([3, 1])) == 0.25
    assert card.gini(np.array([2, 2, 2])) == 0
    counts = np.array([50, 20, 10, *[1] * 20])  # 23 items: 1 % is one of them, 10 % are three
    assert (card.top_share(counts, 1), card.top_share(counts, 10)) == (0.5, 0.8)


@given(falling(1))
def test_gini_is_half_the_relative_mean_difference(counts):
    differences = np.abs(counts[:, None] - counts).mean()
    assert card.gini(counts) == pytest.approx(differences / 2 / counts.mean(), abs=1e-12)


@pytest.mark.parametrize("slope", [0.3, 1.0, 1.7])
def test_zipf_recovers_a_planted_slope(slope):
    p = np.arange(1, 501) ** -slope
    exact = card.zipf(np.maximum(1, np.round(1e9 * p / p.sum()).astype(int)))
    assert exact["slope"] == pytest.approx(slope, abs=1e-5)
    assert exact["distance"] < 1e-5
    drawn = np.random.default_rng(1).multinomial(1_000_000, p / p.sum())
    found = card.zipf(np.sort(drawn[drawn > 0])[::-1])
    assert found["slope"] == pytest.approx(slope, abs=0.01)
    assert found["distance"] < 0.01


@given(falling(2))
def test_zipf_is_where_the_likelihood_is_highest(counts):
    rank = np.arange(1, len(counts) + 1)

    def likelihood(slope):
        return counts @ np.log(rank**-slope / (rank**-slope).sum())

    slope = card.zipf(counts)["slope"]
    assert slope >= 0
    for other in (slope - 0.01, slope + 0.01):
        assert likelihood(slope) > likelihood(other) or other < 0


def test_zipf_of_equal_counts_is_level_and_of_one_item_nothing():
    level = card.zipf(np.array([7] * 10))
    assert (level["slope"], level["distance"]) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert card.zipf(np.array([7]))["slope"] is None


# --- time and repeats ---


def test_times_by_hand():
    day = 86_400
    seconds = [[0, 0, 5, 5 + day], [2 * day - 1, 2 * day - 1, 2 * day - 1], [7]]
    result = card.times(log([[1, 2, 3, 4], [1, 2, 3], [1]], seconds))
    assert result == {
        "first_day": "1970-01-01",
        "last_day": "1970-01-02",
        "median_gap": 0.0,  # of 0, 5, 86400, 0, 0
        "median_gap_above_0": (5 + day) / 2,
        "ties": 5 / 8,
        "interactions_without_time": 0,
        "reason": None,
    }


timed = st.lists(st.lists(st.integers(0, 4), max_size=8).map(sorted), min_size=1, max_size=5).filter(any)


@given(timed, st.data())
def test_times_plainly(seconds, data):
    known = [data.draw(st.booleans()) for _ in seconds]
    given_ = [user if has else [card.UNKNOWN] * len(user) for user, has in zip(seconds, known, strict=True)]
    result = card.times(log([[1] * len(user) for user in seconds], given_))
    rest = [user for user, has in zip(seconds, known, strict=True) if has and user]
    gaps = [after - here for user in rest for here, after in pairwise(user)]
    assert result["median_gap"] == (np.median(gaps) if gaps else None)
    n = sum(map(len, rest))
    tied = sum(Counter(user)[second] > 1 for user in rest for second in user)
    assert result["ties"] == (pytest.approx(tied / n) if n else None)
    assert result["interactions_without_time"] == sum(map(len, seconds)) - n
    assert (result["reason"] is None) == bool(gaps)


def test_ties_are_those_that_prepare_counts(ml_1m, ml_1m_dir):
    stats = ml_1m[2]["interactions"]
    found = card.describe(card.histories(ml_1m_dir)[0])
    assert found["interactions"] == stats["kept"] == 1_000_209
    assert found["time"]["ties"] * stats["kept"] == pytest.approx(stats["tied_in_user_and_second"])
    assert found["repeat_rate"] == stats["repeated_user_item_pairs"] == 0
    assert found["items"] == ml_1m[2]["n_items_with_withheld_tails"]


@given(histories)
def test_repeated_means_that_the_user_had_it_before(items):
    plain = [item in history[:place] for history in items for place, item in enumerate(history)]
    assert card.repeated(log(items)).tolist() == plain


# --- entropies ---


def plain_entropy(things):
    n = len(things)
    return -sum(count / n * math.log(count / n) for count in Counter(things).values())


def test_entropies_by_hand():
    """1 2 1 2 and 1 3: after 1 comes 2 twice and 3 once, after 2 always 1."""
    found = card.describe(log([[1, 2, 1, 2], [1, 3]]))["entropy"]
    unigram = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6
    assert found["unigram"]["plug_in"] == pytest.approx(unigram)
    assert found["unigram"]["miller_madow"] == pytest.approx(unigram + 2 / 12)
    step = 3 / 4 * (2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3))
    assert found["conditional"]["plug_in"] == pytest.approx(step)
    assert found["conditional"]["miller_madow"] == pytest.approx(step + (3 - 2) / 8)
    counts = [found["conditional"][key] for key in ("steps", "pairs", "pairs_seen_once")]
    assert counts == [4, 3, 2]


@given(histories)
def test_entropies_plainly(items):
    found = card.describe(log(items))["entropy"]
    flat = [item for history in items for item in history]
    assert found["unigram"]["plug_in"] == pytest.approx(plain_entropy(flat), abs=1e-12)
    assert found["unigram"]["plug_in"] <= math.log(len(set(flat))) + 1e-12
    pairs = [pair for history in items for pair in pairwise(history)]
    step = found["conditional"]
    assert step["steps"] == len(pairs)
    assert step["pairs"] == len(set(pairs))
    assert step["pairs_seen_once"] == sum(count == 1 for count in Counter(pairs).values())
    if not pairs:
        assert step["plug_in"] is step["miller_madow"] is None
        return
    plain = sum(
        plain_entropy([after for before, after in pairs if before == here]) * count / len(pairs)
        for here, count in Counter(here for here, _ in pairs).items()
    )
    assert step["plug_in"] == pytest.approx(plain, abs=1e-12)
    assert step["plug_in"] <= plain_entropy([after for _, after in pairs]) + 1e-12


def textbook(sequence, m, r):
    """Pincus 1991: every window against every other, by the largest difference."""

    def phi(k):
        windows = [sequence[at : at + k] for at in range(len(sequence) - k + 1)]
        match = [
            [max(abs(a - b) for a, b in zip(one, other, strict=True)) <= r for other in windows]
            for one in windows
        ]
        return sum(math.log(sum(row) / len(windows)) for row in match) / len(windows)

    return abs(phi(m) - phi(m + 1))


@given(histories, st.integers(1, 3), st.integers(2, 9), st.floats(0, 0.99))
def test_approximate_entropy_is_that_of_the_textbook(items, m, last, r):
    chosen = [history[-last:] for history in items if len(history[-last:]) > m]
    found = card.approximate_entropy(log(items), m, last)
    assert (found["users"], found["users_left_out"]) == (len(chosen), len(items) - len(chosen))
    if not chosen:
        assert found["mean"] is None
        return
    plain = [textbook(history, m, r) for history in chosen]
    assert found["mean"] == pytest.approx(np.mean(plain), abs=1e-12)
    windows = [list(zip(*(history[k:] for k in range(m)), strict=False)) for history in chosen]
    assert found["users_without_match"] == sum(len(set(each)) == len(each) for each in windows)


def test_approximate_entropy_by_hand():
    """1 2 1 2 1: windows of two are 12 21 12 21, of three 121 212 121; of the last 50 items only."""
    found = card.approximate_entropy(log([[9] * 7 + [1, 2, 1, 2, 1], [1, 2]]), last=5)
    expected = abs(math.log(2 / 4) - (2 * math.log(2 / 3) + math.log(1 / 3)) / 3)
    assert found["mean"] == pytest.approx(expected)
    assert (found["users"], found["users_left_out"], found["users_without_match"]) == (1, 1, 0)
    assert card.approximate_entropy(log([[4] * 60]))["mean"] == pytest.approx(0, abs=1e-12)


def test_without_repeats_approximate_entropy_only_says_the_length():
    """What it is on every log of ratings, where nobody rates twice: ln 49/48 at 50 items."""
    found = card.approximate_entropy(log([range(1, 81), range(81, 131)]))
    assert found["mean"] == pytest.approx(math.log(49 / 48))
    assert found["users_without_match"] == found["users"] == 2


# --- folders ---


def write(folder, lists, times, domains=None):
    """A prepared folder with these item ids and timestamps (an Arrow array, or lists)."""
    largest = max((item for row in lists for item in row or []), default=1)
    folder.mkdir(exist_ok=True)
    ids = pyarrow.array(lists, pyarrow.large_list(pyarrow.int32()))
    if not isinstance(times, pyarrow.Array):
        times = pyarrow.array(times, pyarrow.large_list(pyarrow.int64()))
    table = pyarrow.table({"user": list(map(str, range(len(lists)))), "items": ids, "timestamps": times})
    pyarrow.parquet.write_table(table, folder / "sequences.parquet")
    names = pyarrow.array(domains or [None] * largest, pyarrow.string())
    rows = pyarrow.table({"id": np.arange(1, largest + 1, dtype=np.int32), "domain": names})
    pyarrow.parquet.write_table(rows, folder / "items.parquet")
    (folder / "stats.json").write_text(json.dumps({"n_items": largest, "dataset": "toy"}))
    return folder


def run_verb(folder, out):
    """`recscale card`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recscale", "card", "--data", str(folder), "--out", str(out)])
        cli.main()


def made(folder, out):
    """The card's content as read back, and the CSV of its figure."""
    run_verb(folder, out)
    content = json.loads((out / "card.json").read_text())
    assert content == card.card(folder)[1]
    assert sorted(path.name for path in out.iterdir()) == [
        f"card.{end}" for end in ("csv", "json", "pdf", "png")
    ]
    return content, pd.read_csv(out / "card.csv")


def test_a_prepared_log_has_its_card(tmp_path):
    folder = made_up(tmp_path)
    content, table = made(folder, tmp_path / "out")
    frame = pl.read_parquet(folder / "sequences.parquet")
    lengths = frame["items"].list.len()
    assert content["users"] == 200
    assert content["interactions"] == lengths.sum()
    assert content["lengths"]["max"] == lengths.max()
    assert content["domains"] is None
    series = dict(iter(table.groupby("series")))
    assert set(series) == {"lengths", "items", "zipf", "interactions", "gaps"}
    for name, total in (("lengths", 200), ("interactions", lengths.sum()), ("gaps", lengths.sum() - 200)):
        rows = series[name]
        assert ((rows["x_end"] - rows["x"]) * rows["y"]).sum() == pytest.approx(total)
        assert (rows["x"].to_numpy()[1:] == rows["x_end"].to_numpy()[:-1]).all()
    assert series["items"]["y"].sum() == lengths.sum()  # thirty items: each is drawn
    assert series["zipf"]["y"].sum() == pytest.approx(lengths.sum())


def test_the_same_data_give_the_same_files(tmp_path):
    folder = made_up(tmp_path)
    made(folder, tmp_path / "one")
    made(folder, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


LISTS = [[1, 2, 1, 3], [2, 2, 3], [4]]


@pytest.mark.parametrize(
    "times",
    [
        pyarrow.nulls(3),
        pyarrow.nulls(3, pyarrow.list_(pyarrow.int64())),
        pyarrow.array([[None] * len(row) for row in LISTS], pyarrow.list_(pyarrow.int64())),
        pyarrow.array([[None] * len(row) for row in LISTS], pyarrow.list_(pyarrow.null())),
    ],
)
def test_an_order_only_log_says_so(tmp_path, times):
    content, table = made(write(tmp_path / "data", LISTS, times), tmp_path / "out")
    time = content["time"]
    assert time.pop("reason") == card.ORDER_ONLY
    assert time.pop("interactions_without_time") == 8
    assert set(time.values()) == {None}
    assert content["repeat_rate"] == 2 / 8
    repeats = table[table["series"] == "repeats"]
    assert repeats["y"].tolist() == [0, 1 / 2, 1 / 2, 0]
    assert set(table["series"]) == {"lengths", "items", "zipf", "repeats"}


def test_users_without_time_stand_beside_users_with_it(tmp_path):
    times = [[0, 10, 10, 30], None, [None]]
    time = made(write(tmp_path / "data", LISTS, times), tmp_path / "out")[0]["time"]
    assert (time["median_gap"], time["ties"], time["interactions_without_time"]) == (10, 0.5, 4)


def test_one_user_of_one_item(tmp_path):
    for name, times in (("timed", [[5]]), ("order", [None])):
        content, _ = made(write(tmp_path / name, [[1]], times), tmp_path / f"{name}-out")
        assert (content["users"], content["items"], content["interactions"]) == (1, 1, 1)
        assert content["popularity"]["gini"] == 0
        assert content["popularity"]["zipf"]["slope"] is None
        assert content["entropy"]["unigram"]["plug_in"] == 0
        assert content["entropy"]["conditional"]["plug_in"] is None
        assert content["approximate_entropy"]["mean"] is None
        assert content["approximate_entropy"]["users_left_out"] == 1
        assert content["time"]["reason"].startswith("no gap" if name == "timed" else "order only")


@given(histories, st.lists(st.sampled_from(["b", "a", None]), min_size=5, max_size=5))
def test_a_domain_is_the_log_of_its_items_alone(items, domains):
    seconds = [np.arange(len(history)) for history in items]
    found = dict(card.by_domain(log(items, seconds), pd.Series(domains, dtype=object)))
    for name in set(domains):
        kept = [[domains[i - 1] == name for i in history] for history in items]
        rows = [
            (np.array(h)[k], s[k]) for h, k, s in zip(items, kept, seconds, strict=True) if any(k)
        ]  # fmt: skip
        part = found.pop(name or "(no domain)", None)
        if not rows:
            assert part is None
            continue
        expected = log([list(row[0]) for row in rows], [row[1] for row in rows])
        assert part.items.tolist() == expected.items.tolist()
        assert part.offsets.tolist() == expected.offsets.tolist()
        assert part.time.tolist() == expected.time.tolist()
    assert not found


def test_domains_have_their_numbers(tmp_path):
    folder = write(tmp_path / "data", LISTS, [None] * 3, ["Books", "Games", "Games", None])
    domains = made(folder, tmp_path / "out")[0]["domains"]
    assert {name: part["interactions"] for name, part in domains.items()} == {
        "Books": 2,
        "Games": 5,
        "(no domain)": 1,
    }
    assert domains["Games"]["users"] == 2
    assert domains["Games"]["repeat_rate"] == 1 / 5


@pytest.mark.parametrize(
    ("lists", "times", "message"),
    [
        ([], [], "it has no interactions"),
        ([[]], [[]], "it has no interactions"),
        ([None, [1]], [None, [1]], "items are not lists of ids"),
        ([[1, None, 2]], [[1, 2, 3]], "items are not lists of ids"),
        ([[1, 2]], [[1]], "timestamps: a user has not as many as items"),
        ([[1, 2]], [[2, 1]], "timestamps: of a user are not in order"),
        ([[1, 2]], [[1_600_000_000_000, 1_600_000_000_001]], "timestamps: are not seconds"),
        ([[0, 1]], [[1, 2]], "has item ids 0 to 1, items.parquet has 1 to 1"),
    ],
)
def test_damaged_sequences_are_one_line(tmp_path, lists, times, message):
    plain = [[item or 0 for item in row or []] for row in lists]
    folder = write(tmp_path / "data", plain, [None] * len(plain))
    ids = pyarrow.array(lists, pyarrow.list_(pyarrow.int32()))
    table = pyarrow.table({"items": ids, "timestamps": pyarrow.array(times, pyarrow.list_(pyarrow.int64()))})
    pyarrow.parquet.write_table(table, folder / "sequences.parquet")
    with pytest.raises(InputError, match=message) as caught:
        card.card(folder)
    assert str(folder / "sequences.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sequences.parquet", "items.parquet", "stats.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_missing_or_damaged_file_is_one_line_with_its_name(tmp_path, name, damage, capsys):
    path = write(tmp_path / "data", LISTS, [None] * 3) / name
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif name.endswith("parquet"):
        pl.DataFrame({"id": [1, 1], "domain": [None, "x"]}).write_parquet(path)
    else:
        path.write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        run_verb(tmp_path / "data", tmp_path / "out")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"recscale: {path}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_verb_writes_the_card_and_says_it_in_a_line(tmp_path, capsys):
    histories = [[user % 3, 3, 4, user % 5] for user in range(30)]
    folder = write_dataset(prepare(log_of(histories), 15), tmp_path)
    run_verb(folder, tmp_path)
    line = capsys.readouterr().out
    assert "30 users, 5 items, 120 interactions; Gini 0." in line
    assert line.count("\n") == 1
    assert (tmp_path / "card.json").exists()
