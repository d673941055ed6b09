import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import log_of, prepare, write_dataset
from recscale.next_item import sequences
from recscale.next_item.tasks.cases import before_test
from recscale.next_item.tasks.long_tail import groups, long_tail, train_counts
from trained import trained_on


def test_four_groups_of_a_quarter_of_the_interactions_each():
    """16 interactions: 4 + 4 | 2 + 2 | 1 + 1 + 1 + 1, the first two a quarter each."""
    assert groups(np.array([1, 4, 2, 1, 4, 1, 2, 1])).tolist() == [3, 0, 2, 3, 1, 3, 2, 3]


def test_an_item_over_two_quarters_belongs_to_that_of_its_first_interaction():
    assert groups(np.array([8, 4, 2, 1, 1])).tolist() == [0, 2, 3, 3, 3]
    assert groups(np.array([3, 0, 1])).tolist() == [0, 3, 3]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_groups_are_even_up_to_one_item_and_go_down_in_popularity(count):
    count = np.array(count)
    group = groups(count)
    quarter = count.sum() / 4
    for g in range(4):
        assert abs(count[group == g].sum() - quarter) <= count.max()
        assert count[group <= g].sum() >= (g + 1) * quarter  # the item on the edge is inside
        assert count[group <= g].min(initial=99) >= count[group > g].max(initial=0)


def test_popularity_is_of_the_train_part_alone(tmp_path):
    histories = [["a", "b", "a", "c", "d"], ["a", "c", "b", "b"]]  # train: a b a, a c
    tables = prepare(log_of(histories), 15)
    data = sequences.load(write_dataset(tables, tmp_path))
    by_key = dict(zip(tables[1]["item"], tables[1]["id"], strict=True))
    counts = train_counts(data)
    assert {key: counts[item - 1] for key, item in by_key.items()} == {"a": 3, "b": 1, "c": 1, "d": 0}
    assert tables[1].sort("id")["train_count"].to_list() == counts.tolist()


def test_long_tail_cases_are_in_the_group_of_their_target(small_data):
    trained = trained_on(small_data)
    cases = long_tail(trained).cases
    _, target = before_test(trained.data, 12)
    group = groups(train_counts(trained.data))
    assert cases["group"].tolist() == [f"G{group[item - 1] + 1}" for item in target]
    assert cases["user"].tolist() == list(range(trained.data.n_users))
