from dataclasses import replace

import numpy as np
import pytest

from conftest import log_of, prepare, write_dataset
from recscale.errors import InputError
from recscale.next_item import sequences
from recscale.next_item.tasks.cases import before_test
from recscale.next_item.tasks.cold_start import cold_start
from trained import long_users, rows_of, successor, trained_on


def cold_data(tmp_path):
    """Users with 48 to 52 items before their test item, and one short; no trajectories."""
    histories = [[(u + k) % 60 for k in range(n + 1)] for u, n in enumerate([48, 49, 50, 51, 52, 9])]
    return write_dataset(prepare(log_of(histories), 1000), tmp_path)


def test_cold_start_asks_users_of_fifty_items_or_more_for_one_target_six_times(tmp_path):
    trained = successor(cold_data(tmp_path))
    asked = []
    answer = trained.answer

    def noted(inputs, target, top):
        asked.append((rows_of(inputs), target))
        return answer(inputs, target, top)

    trained.answer = noted
    cases = cold_start(trained).cases
    assert cases.groupby("x")["user"].apply(list).to_dict() == {n: [2, 3, 4] for n in (5, 10, 20, 30, 40, 50)}
    rows = [
        trained.data.items[trained.data.offsets[u] : trained.data.offsets[u + 1]].tolist() for u in (2, 3, 4)
    ]
    for n, (inputs, target) in zip((50, 40, 30, 20, 10, 5), asked, strict=True):
        assert inputs == [row[:-1][-n:] for row in rows]
        assert target.tolist() == [row[-1] for row in rows]
    assert set(cases["group"]) == {"in training"}


def test_users_outside_the_sample_of_a_run_are_held_out(tmp_path):
    trained = trained_on(long_users(tmp_path), 50, data_fraction=0.5)
    cases = cold_start(trained).cases
    inside = trained.data.in_fraction(0.5)
    assert {True, False} == {bool(inside[user]) for user in cases["user"]}
    assert cases["group"].tolist() == ["in training" if inside[u] else "held out" for u in cases["user"]]


def test_users_without_a_target_in_a_share_of_the_time_are_held_out(tmp_path):
    """Two users of 53 items, one long before the other: the later half of the targets is of the later one."""
    log = log_of([range(53), range(53)], seconds=[range(53), range(1000, 1053)])
    folder = write_dataset(prepare(log, 1000), tmp_path)
    timed = sequences.load(folder, with_timestamps=True)
    trained = trained_on(folder, 50, data_axis="time", data_fraction=0.5)
    cases = cold_start(replace(trained, data=timed)).cases
    later = [timed.timestamps[timed.offsets[user]] >= 1000 for user in cases["user"]]
    assert cases["group"].tolist() == ["in training" if is_later else "held out" for is_later in later]
    assert set(cases["group"]) == {"in training", "held out"}


def test_coverage_is_the_share_of_the_catalogue_in_any_list(tmp_path):
    """Lists of the successor model: the ten items after the last one."""
    trained = successor(cold_data(tmp_path))
    inputs, _ = before_test(trained.data, 50)
    n = trained.data.n_items
    shown = {(row[-1] + k) % n for row in rows_of(inputs.take(np.array([2, 3, 4]))) for k in range(1, 11)}
    coverage = cold_start(trained).coverage
    assert coverage["coverage@10"].tolist() == pytest.approx([len(shown) / n] * 6)


def test_users_in_training_and_held_out_have_a_coverage_each(tmp_path):
    trained = trained_on(long_users(tmp_path), 50, data_fraction=0.5)
    outcome, inside = cold_start(trained), trained.data.in_fraction(0.5)
    inputs, _ = before_test(trained.data, 50)
    _, best = trained.answer(inputs.latest(5), top=10)
    for group, chosen in (("in training", inside), ("held out", ~inside)):
        users = set(outcome.cases["user"]) & set(np.flatnonzero(chosen).tolist())
        shown = {int(item) for user in users for item in best[user]}
        row = outcome.coverage[(outcome.coverage["group"] == group) & (outcome.coverage["x"] == 5)]
        assert row["coverage@10"].item() == pytest.approx(len(shown) / trained.data.n_items)


def test_shorter_models_are_asked_with_what_they_can_take(tmp_path):
    trained = trained_on(long_users(tmp_path), 20)
    assert sorted(set(cold_start(trained).cases["x"])) == [5, 10, 20]


def test_no_long_user_is_one_line(tmp_path):
    folder = write_dataset(prepare(log_of([range(30)]), 1000), tmp_path)
    with pytest.raises(InputError, match="no user has 50 items before the test item"):
        cold_start(trained_on(folder))
