import gzip
import zipfile
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recscale import interactions
from recscale.errors import InputError

COLUMNS = ["user", "item", "rating", "timestamp"]
DOUBLE_COLONS = {"separator": "::", "columns": COLUMNS}
NAMED = {"user": "who", "item": "what", "timestamp": "when"}


def read(path, form, members=(), **more):
    """The log of one file, without its domain."""
    source = {"name": "test", "format": form, "files": [{"file": path.name, "members": list(members)}]} | more
    return interactions.read([path], source).drop("domain")


def test_the_formats_of_the_sources_give_one_table(tmp_path):
    titles = 'u\ti\tr\tt\np_1\tIt\'s "A", B\t5\t100\np_2\tC::D\t3.5\t99\n'
    (tmp_path / "a.inter").write_text(titles)
    tsv = {"separator": "\t", "header": True, "columns": COLUMNS}
    frame = read(tmp_path / "a.inter", tsv, strip_user_prefix="p_")
    assert frame.rows() == [("1", 'It\'s "A", B', 5.0, 100), ("2", "C::D", 3.5, 99)]
    (tmp_path / "b.dat").write_text("1::9::5::100\n2::7::3::99\n")
    assert read(tmp_path / "b.dat", DOUBLE_COLONS).rows() == [("1", "9", 5.0, 100), ("2", "7", 3.0, 99)]


def test_columns_by_name_from_text_json_lines_and_parquet(tmp_path):
    rows = [("a", "x, y", None, 100), ("b", "z", None, 101)]
    (tmp_path / "log.csv").write_text('more,what,when,who\n1,"x, y",100,a\n2,z,101,b\n')
    text = {"separator": ",", "header": True, "columns": NAMED}
    assert read(tmp_path / "log.csv", text).rows() == rows
    lines = '{"who": "a", "what": "x, y", "when": 100, "text": "q"}\n{"when": 101, "what": "z", "who": "b"}\n'
    with gzip.open(tmp_path / "log.jsonl.gz", "wt") as file:
        file.write(lines)
    assert read(tmp_path / "log.jsonl.gz", {"kind": "jsonl", "columns": NAMED}).rows() == rows
    table = pl.DataFrame({"when": [100, 101], "who": ["a", "b"], "what": ["x, y", "z"]})
    table.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet", {"kind": "parquet", "columns": NAMED}).rows() == rows


@pytest.mark.parametrize(
    ("unit", "written"), [("s", "1500000000"), ("ms", "1500000000999"), ("iso", "2017-07-14 02:40:00")]
)
def test_times_in_other_units(tmp_path, unit, written):
    (tmp_path / "log.csv").write_text(f"a,x,{written}\n")
    form = {"separator": ",", "columns": ["user", "item", "timestamp"], "time_unit": unit}
    assert read(tmp_path / "log.csv", form)["timestamp"].to_list() == [1_500_000_000]


def test_several_files_are_one_log_with_their_domains(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"u::{name}::5::100\n")
    entries = [{"file": "b", "domain": "B", "rows": 1}, {"file": "a", "domain": "A"}]
    source = {"name": "two", "format": DOUBLE_COLONS, "files": entries}
    log = interactions.read([tmp_path / "b", tmp_path / "a"], source)
    assert log.select("item", "domain").rows() == [("b", "B"), ("a", "A")]
    entries[0]["rows"] = 2
    with pytest.raises(InputError, match="b: has 1 rows, the file has 2"):
        interactions.read([tmp_path / "b", tmp_path / "a"], source)


def test_a_gzip_that_breaks_off_is_named(tmp_path):
    with gzip.open(tmp_path / "log.gz", "wt") as file:
        file.write("1::9::5::100\n" * 1000)
    whole = (tmp_path / "log.gz").read_bytes()
    (tmp_path / "log.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match=r"log\.gz: is not a readable interaction log"):
        read(tmp_path / "log.gz", DOUBLE_COLONS)


def brute_core(rows, k):
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= k and items[row[1]] >= k]
        if kept == rows:
            return rows
        rows = kept


row = st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.integers(1, 3), st.integers(0, 3))


@given(st.lists(row, max_size=60), st.integers(2, 5), st.integers(1, 3))
def test_filters_against_brute_force_and_counts_add_up(rows, k, least):
    log = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    kept, taken = interactions.keep(log, {"k_core": k, "min_rating": least})
    unique = [r for n, r in enumerate(rows) if r not in rows[:n]]
    assert kept.rows() == brute_core([r for r in unique if r[2] >= least], k)
    assert len(kept) + sum(taken.values()) == len(rows)


def test_dates_keep_from_the_first_to_before_the_second():
    days = [("a", "x", 1.0, 86_400 * day + second) for day in range(5) for second in (0, 86_399)]
    log = pl.DataFrame(days, schema=COLUMNS, orient="row")
    kept, taken = interactions.keep(log, {"after": "1970-01-02", "before": "1970-01-04"})
    assert kept["timestamp"].to_list() == [86_400, 172_799, 172_800, 259_199]
    assert taken == {"exact_duplicates": 0, "before_first_day": 2, "after_last_day": 4}


def test_members_are_read_one_after_the_other(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1::9::5::100\n")
        archive.writestr("y", "2::7::3::99\n")
    assert read(tmp_path / "a.zip", DOUBLE_COLONS, ["y", "x"])["user"].to_list() == ["2", "1"]


@pytest.mark.parametrize(
    ("content", "members"),
    [
        (b"<html>not found</html>", ["ratings.dat"]),
        (b"PK\x03\x04 cut off", ["ratings.dat"]),
        (b"1::9::five::100\n", []),
        (b"", []),
    ],
)
def test_what_is_not_a_log_is_named_in_one_line(tmp_path, content, members):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip.*: is not a readable interaction log") as caught:
        read(path, DOUBLE_COLONS, members)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row", ["::7::3::99", "2::::3::99", "2::7::3::", "", "2::7::3::1.5", "2::7::3::nan", "2::7::3::inf"]
)
def test_rows_without_a_place_in_a_sequence_are_counted_and_refused(tmp_path, row):
    path = tmp_path / "r.dat"
    path.write_text(f"1::9::5::100\n{row}\n3::9::5::100\n")
    with pytest.raises(InputError, match=r"r\.dat: 1 of 3 rows lack .*the first is row 2"):
        read(path, DOUBLE_COLONS)


def test_a_missing_member_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1::9::5::100\n")
    with pytest.raises(InputError, match=r"a\.zip: ratings\.dat: "):
        read(tmp_path / "a.zip", DOUBLE_COLONS, ["ratings.dat"])


@pytest.mark.parametrize(
    "form",
    [
        {"separator": ",", "columns": NAMED},
        {"separator": "::", "header": True, "columns": NAMED},
        {"kind": "jsonl", "columns": COLUMNS},
    ],
)
def test_columns_that_cannot_be_found_are_one_line(tmp_path, form):
    (tmp_path / "log").write_text("a,x,100\n")
    with pytest.raises(InputError, match=r"test: format: .*(need a header|needs a mapping)"):
        read(tmp_path / "log", form)
