import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import log_of, prepare, write_dataset
from recscale.errors import InputError
from recscale.next_item.tasks.cases import Inputs
from recscale.next_item.tasks.domains import domains, shares
from trained import inputs_of, trained_on

FILMS = {"a": "drama", "b": "drama", "c": "comedy", "d": "war", "e": None}


def film_data(tmp_path, films):
    """Users of three items and more, the last is the test item."""
    sequences_, items, stats = prepare(
        log_of([["a", "c", "b"], ["a", "b", "c"], ["c", "e", "d"], ["d", "c", "e"]])
    )
    items = items.with_columns(domain=pl.col("item").replace_strict(films, return_dtype=pl.String))
    return write_dataset((sequences_, items, stats), tmp_path)


def test_mix_has_an_item_of_the_domain_of_the_target_and_diff_none(tmp_path):
    """b after a, c: drama twice; c after a, b: no comedy; d after c, e: no war; e has no domain: left out."""
    trained = trained_on(film_data(tmp_path, FILMS))
    cases = domains(trained).cases
    assert dict(zip(cases["user"], cases["group"], strict=True)) == {0: "mix", 1: "diff", 2: "diff"}


@pytest.mark.parametrize("films", [dict.fromkeys(FILMS), dict.fromkeys(FILMS, "drama")])
def test_without_two_domains_it_is_one_line(tmp_path, films):
    with pytest.raises(InputError, match=r"items.parquet: domain: has [01] values"):
        domains(trained_on(film_data(tmp_path, films)))


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.integers(1, 9),
)
def test_shared_domains_are_the_brute_force_ones(rows, domain_of, target):
    domain = np.array([0, *domain_of])
    if domain[target] == 0:
        return
    found = shares(inputs_of(rows), np.full(len(rows), target), domain)
    assert found.tolist() == [any(domain[item] == domain[target] for item in row) for row in rows]


def test_padding_shares_no_domain():
    assert not shares(Inputs(np.array([[2, 0, 0]]), np.array([1])), np.array([1]), np.array([5, 5, 1])).any()
