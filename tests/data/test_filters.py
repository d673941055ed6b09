from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recscale.data.filters import k_core, load_pairs, save_pairs


def brute_force(rows, k):
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [row for row in rows if users[row[0]] >= k and items[row[1]] >= k]
        if kept == rows:
            return rows
        rows = kept


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=80),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_the_core_is_the_fixpoint_however_users_are_parted(tmp_path_factory, rows, k, partitions):
    folder = tmp_path_factory.mktemp("pairs")
    places = [
        [place for place, (user, _) in enumerate(rows) if user % partitions == part]
        for part in range(partitions)
    ]
    for part, mine in enumerate(places):
        users = np.array([rows[place][0] // partitions for place in mine], np.uint32)
        items = np.array([rows[place][1] for place in mine], np.uint32)
        save_pairs(folder, part, users, items, np.array(mine, np.uint32))
    k_core(folder, partitions, 7, k)
    left = sorted(place for part in range(partitions) for place in load_pairs(folder, part)[2].tolist())
    assert [rows[place] for place in left] == brute_force(rows, k)
