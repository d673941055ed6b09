import itertools
import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import FrameLog, log_of, prepare, write_dataset
from recscale.errors import InputError
from recscale.next_item import sequences
from runs import run_of


def data_of(lengths, tmp_path):
    histories = [[f"u{u}-{k}" for k in range(n)] for u, n in enumerate(lengths)]
    return sequences.load(write_dataset(prepare(log_of(histories), 15), tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.integers(3, 90), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_every_target_is_taken_once_with_the_most_context(tmp_path, lengths, max_len, stride):
    stride = min(stride, max_len)
    data = data_of(lengths, tmp_path)
    windows = sequences.windows(data, np.ones(data.n_users, bool), max_len, stride)
    taken = []
    for start, length, targets in zip(windows.start, windows.length, windows.targets, strict=True):
        user = np.searchsorted(data.offsets, start, side="right") - 1
        first = data.offsets[user]
        assert 1 <= targets <= length <= max_len
        # Either the window begins at the user's first item or it is as long as it may be.
        assert start == first or length == max_len
        assert targets <= stride or start == first
        taken += [start + length - k for k in range(targets)]
    expected = [data.offsets[u] + k for u in range(data.n_users) for k in range(1, data.train_length[u])]
    assert sorted(taken) == expected


@pytest.mark.parametrize("stride", [1, 25, 50])
def test_ml_1m_has_921689_targets_an_epoch_at_any_stride(ml_1m_data, stride):
    everyone = np.ones(ml_1m_data.n_users, bool)
    assert sequences.windows(ml_1m_data, everyone, 50, stride).targets.sum() == 921689


@pytest.mark.parametrize(("split", "at"), [("valid", 18), ("test", 19)])
def test_contexts_end_just_before_their_target(tmp_path, split, at):
    data = data_of([30, 5], tmp_path)  # user 0: 18 train, 1 valid, 1 test, 10 withheld
    where, targets = sequences.contexts(data, split, 6)
    rows = [data.items[s : s + n].tolist() for s, n in zip(where.start, where.length, strict=True)]
    assert rows[0] == data.items[at - 6 : at].tolist()
    assert targets[0] == data.items[at]
    second = data.items[data.offsets[1] : data.offsets[2]].tolist()  # 3 train, 1 valid, 1 test
    n = {"valid": 3, "test": 4}[split]
    assert rows[1] == second[:n]
    assert targets[1] == second[n]


def test_fractions_are_nested_and_of_stated_size(ml_1m_data):
    fractions = [1, 0.5, 0.25, 0.1, 0.0625]
    masks = [ml_1m_data.in_fraction(f) for f in fractions]
    assert [m.sum() for m in masks] == [6040, 3020, 1510, 604, 378]
    for larger, smaller in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()


# --- the axes of the data ------------------------------------------------------------------------

AXES = ("users", "history", "time")


def run_on(axis, fraction, max_len=5, stride=1, data_seed=0):
    """A run on that much of the data; all of it is of axis users."""
    more = {} if fraction == 1 else {"data_axis": axis, "data_seed": data_seed}
    return run_of("x", 1, 8, 0.1, max_len=max_len, stride=stride, data_fraction=fraction, **more)


def load_log(log, folder):
    """The prepared log with its times, and the key of each user."""
    frame, items, stats = prepare(log, 15)
    return sequences.load(write_dataset((frame, items, stats), folder), with_timestamps=True), list(
        frame["user"]
    )


def sample(data, keys, run):
    """{(user key, place of the target): places of its input items}, as the windows of `run` have them."""
    windows = sequences.train_windows(data, run, sequences.train_users(data, run))
    found = {}
    for start, length, targets in zip(windows.start, windows.length, windows.targets, strict=True):
        user = int(np.searchsorted(data.offsets, start, side="right")) - 1
        first = int(start - data.offsets[user])
        for at in range(first + length - targets + 1, first + length + 1):
            assert (keys[user], at) not in found  # each target once
            found[keys[user], at] = tuple(range(first, at))
    assert windows.input_items == sum(len(inputs) for inputs in found.values())
    return found


def expected(data, keys, run):
    """The same, one target at a time from the definitions of docs/training.md."""
    share = Fraction(str(run.sample.data_fraction))
    rows = [
        (key, data.timestamps[data.offsets[user] :][: data.train_length[user]].tolist())
        for user, key in enumerate(keys)
    ]
    if run.sample.data_axis == "time":

        def inside(moment):
            return [[at for at, second in enumerate(seconds) if second >= moment] for _, seconds in rows]

        total = sum(len(seconds) - 1 for _, seconds in rows)
        moments = sorted({second for _, seconds in rows for second in seconds}, reverse=True)
        enough = [
            m for m in moments if sum(max(0, len(x) - 1) for x in inside(m)) >= math.ceil(share * total)
        ]
        begins = [
            min(x, default=len(seconds)) for x, (_, seconds) in zip(inside(enough[0]), rows, strict=True)
        ]
    elif run.sample.data_axis == "users":
        chosen = data.in_fraction(run.sample.data_fraction, run.sample.data_seed)
        begins = [0 if chosen[user] else len(seconds) for user, (_, seconds) in enumerate(rows)]
    else:
        begins = [0] * len(rows)
    found = {}
    for (key, seconds), begin in zip(rows, begins, strict=True):
        for at in range(begin + 1, len(seconds)):
            length = min(at - begin, run.windows.max_len)
            if run.sample.data_axis == "history":
                length = math.ceil(share * length)
            found[key, at] = tuple(range(at - length, at))
    return found


@st.composite
def logs(draw):
    """A log of a few users whose seconds tie often, within a user and between users."""
    lengths = draw(st.lists(st.integers(3, 30), min_size=1, max_size=8))
    seconds = [sorted(draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))) for n in lengths]
    return log_of([[f"{u}-{k}" for k in range(n)] for u, n in enumerate(lengths)], seconds)


FRACTIONS = st.sampled_from([0.01, 0.07, 0.1, 0.25, 0.5, 0.55, 0.9, 1])
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@many
@given(logs(), st.sampled_from(AXES), FRACTIONS, st.integers(1, 12), st.integers(0, 3))
def test_a_sample_is_what_its_axis_says(tmp_path, log, axis, fraction, max_len, data_seed):
    data, keys = load_log(log, tmp_path)
    run = run_on(axis, fraction, max_len, 1, data_seed if axis == "users" else 0)
    assert sample(data, keys, run) == expected(data, keys, run)


@many
@given(logs(), FRACTIONS, st.integers(1, 12), st.integers(1, 12))
def test_strides_change_no_target_of_a_time_sample(tmp_path, log, fraction, max_len, stride):
    data, keys = load_log(log, tmp_path)
    wide = sample(data, keys, run_on("time", fraction, max_len, min(stride, max_len)))
    most = expected(data, keys, run_on("time", fraction, max_len))
    assert set(wide) == set(most)
    assert all(set(inputs) <= set(most[target]) for target, inputs in wide.items())


@many
@given(logs(), st.sampled_from(AXES), st.tuples(FRACTIONS, FRACTIONS), st.integers(0, 2))
def test_a_smaller_fraction_is_inside_a_larger_one(tmp_path, log, axis, fractions, data_seed):
    data, keys = load_log(log, tmp_path)
    small, large, everything = (
        sample(data, keys, run_on(axis, fraction, data_seed=data_seed if axis == "users" else 0))
        for fraction in (*sorted(fractions), 1)
    )
    assert set(small) <= set(large) <= set(everything)
    assert all(set(inputs) <= set(large[target]) for target, inputs in small.items())
    assert all(set(inputs) <= set(everything[target]) for target, inputs in large.items())
    if axis == "history":
        assert set(small) == set(everything)
    if axis == "time":
        assert len(small) >= math.ceil(Fraction(str(min(fractions))) * len(everything))


@many
@given(logs(), st.randoms(), st.sampled_from(AXES), FRACTIONS, st.integers(0, 2))
def test_the_order_of_rows_changes_no_sample(tmp_path, log, random, axis, fraction, data_seed):
    rows = list(range(len(log.frame)))
    random.shuffle(rows)
    run = run_on(axis, fraction, data_seed=data_seed if axis == "users" else 0)
    as_it_is, shuffled = (
        sample(*load_log(frame, tmp_path), run) for frame in (log, FrameLog(log.frame[rows]))
    )
    assert as_it_is == shuffled


def test_a_seed_draws_another_sample_of_users(ml_1m_data):
    masks = [ml_1m_data.in_fraction(0.1, seed) for seed in range(4)]
    assert [mask.sum() for mask in masks] == [604] * 4
    for one, other in itertools.combinations(masks, 2):
        assert 20 < (one & other).sum() < 110  # 60 by chance
    assert (masks[0] == ml_1m_data.in_fraction(0.1)).all()


@pytest.mark.parametrize(
    ("axis", "fraction", "targets", "inputs"),
    [
        ("users", 1, 921_689, 39_546_557),
        ("users", 0.1, 89_439, 3_816_411),
        ("users", 0.5, 468_095, 20_122_302),
        ("history", 0.1, 921_689, 4_066_939),
        ("history", 0.5, 921_689, 19_834_942),
        ("time", 0.1, 92_169, 3_702_642),  # ceil(0.1 * 921,689) = 92,169
        ("time", 0.5, 460_845, 19_573_829),
    ],
)
def test_d_and_d_input_of_ml_1m(ml_1m_dir, axis, fraction, targets, inputs):
    data, run = sequences.load(ml_1m_dir, with_timestamps=True), run_on(axis, fraction, max_len=50)
    windows = sequences.train_windows(data, run, sequences.train_users(data, run))
    assert (windows.targets.sum(), windows.input_items) == (targets, inputs)
    assert windows.length.max() == run.context
    if axis == "history":
        assert len(windows) == targets
        before = np.concatenate([np.arange(1, n) for n in data.train_length])
        cut = [math.ceil(Fraction(str(fraction)) * n) for n in range(51)]
        assert inputs == np.take(cut, np.minimum(before, 50)).sum()


def without(*columns):
    return lambda frame: frame.drop(columns)


def times(change):
    return lambda frame: frame.with_columns(timestamps=change(pl.col("timestamps")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without("timestamps"),
            "timestamps: are absent or null.* data_axis: time .*legal here: users, history",
        ),
        (times(lambda _: pl.lit(None)), "timestamps: are absent or null"),
        (times(lambda _: pl.lit(None, pl.List(pl.Int64))), "timestamps: are absent or null"),
        (times(lambda c: c.list.eval(pl.lit(None, pl.Int64))), "timestamps: are absent or null"),
        (times(lambda c: c.list.eval(pl.when(pl.element() > 2).then(pl.element()))), "absent or null"),
        (times(lambda c: c.list.tail(2)), "timestamps: a user has not as many as items"),
        (times(lambda c: c.list.reverse()), "timestamps: of a user are not in order"),
    ],
)
def test_times_are_loaded_when_asked_and_refused_where_they_are_not_known(tmp_path, damage, message):
    frame, items, stats = prepare(log_of([range(9), range(20)]), 15)
    folder = write_dataset((damage(frame), items, stats), tmp_path)
    data = sequences.load(folder)
    assert data.timestamps is None
    with pytest.raises(InputError, match=message) as caught:
        sequences.load(folder, with_timestamps=True)
    assert str(caught.value).startswith(str(folder / "sequences.parquet"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="loaded without timestamps"):
        data.since(0.5)
