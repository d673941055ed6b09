import csv
import gzip
import io
import json
import zipfile
from collections import Counter

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recscale.data import interactions
from recscale.errors import InputError

COLUMNS = ["user", "item", "rating", "timestamp"]
DOUBLE_COLONS = {"separator": "::", "columns": COLUMNS}
PLAIN = {"columns": COLUMNS}
NAMED = {"user": "who", "item": "what", "timestamp": "when"}
HEADED = {"separator": ",", "header": True, "columns": NAMED}
SECOND = 1_000_000


def log(path, form, members=(), **more):
    file = {"file": path.name} | ({"members": list(members)} if members else {})
    source = {"name": "test", "format": form, "files": [file]} | more
    return interactions.log("test", [path], source, lambda line: None)


def read(path, form, members=(), block=interactions.BLOCK, **more):
    """user, item, rating, timestamp (seconds) of every row, and how many were rejected for what."""
    frames, rejected = [], Counter()
    for chunk in log(path, form, members, **more).chunks(block):
        frames.append(chunk.frame)
        rejected.update(chunk.rejected)
    frame = pl.concat(frames).with_columns(pl.col("timestamp") / SECOND)
    return frame.drop("domain").rows(), dict(rejected)


def written(tmp_path, content, name="log"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- formats ---


def test_the_formats_of_the_sources_give_one_table(tmp_path):
    titles = 'u\ti\tr\tt\np_1\tIt\'s "A", B\t5\t100\np_2\tC::D\t3.5\t99\n'
    tsv = {"separator": "\t", "header": True, "columns": COLUMNS}
    path = written(tmp_path, titles)
    assert read(path, tsv, strip_user_prefix="p_")[0] == [
        ("1", 'It\'s "A", B', 5.0, 100),
        ("2", "C::D", 3.5, 99),
    ]
    path = written(tmp_path, "1::9::5::100\n2::7::3::99\n")
    assert read(path, DOUBLE_COLONS) == ([("1", "9", 5.0, 100), ("2", "7", 3.0, 99)], {})
    path = written(tmp_path, "9,1,5.0,100\r\n7,2,3.0,99\r\n")  # Amazon 2018: CRLF, the item first
    assert read(path, {"columns": ["item", "user", "rating", "timestamp"]})[0][1] == ("2", "7", 3.0, 99)


def test_columns_by_name_from_text_json_lines_and_parquet(tmp_path):
    rows = [("a", "x, y", None, 100), ("b", "z", None, 101)]
    path = written(tmp_path, 'more,what,when,who\n1,"x, y",100,a\n2,z,101,b\n')
    assert read(path, HEADED) == (rows, {})
    lines = '{"who": "a", "what": "x, y", "when": 100, "text": "q"}\n{"when": 101, "what": "z", "who": "b"}\n'
    with gzip.open(tmp_path / "log.gz", "wt") as file:
        file.write(lines)
    assert read(tmp_path / "log.gz", {"kind": "jsonl", "columns": NAMED}) == (rows, {})
    table = pl.DataFrame({"when": [100, 101], "who": ["a", "b"], "what": ["x, y", "z"]})
    table.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet", {"kind": "parquet", "columns": NAMED}) == (rows, {})
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.write(tmp_path / "log.parquet", "a/log.parquet")
    assert read(tmp_path / "log.zip", {"kind": "parquet", "columns": NAMED}, ["a/log.parquet"]) == (rows, {})


def test_parquet_takes_typed_keys_and_times(tmp_path):
    when = pl.Series([1_500_000_000_250, None]).cast(pl.Datetime("ms"))
    pl.DataFrame({"who": [7, 8], "what": [1, 2], "when": when}).write_parquet(tmp_path / "log")
    rows, rejected = read(tmp_path / "log", {"kind": "parquet", "columns": NAMED})
    assert rows == [("7", "1", None, 1_500_000_000.25)]
    assert rejected == {"missing_timestamp": 1}


@pytest.mark.parametrize("content", [b"u1 a b\nu2 b\n\nu3\n", b'{"u1": ["a", "b"], "u2": ["b"], "u3": []}'])
def test_sequences_are_in_order_and_have_no_times(tmp_path, content):
    rows, rejected = read(written(tmp_path, content), {"kind": "sequences"})
    assert rows == [("u1", "a", None, None), ("u1", "b", None, None), ("u2", "b", None, None)]
    assert rejected == {"missing_item": 1}


def test_sequences_with_times(tmp_path):
    rows, rejected = read(
        written(tmp_path, b"0 5|100 6|90\n1 7|x 8\n"), {"kind": "sequences", "time_separator": "|"}
    )
    assert rows == [("0", "5", None, 100), ("0", "6", None, 90)]
    assert rejected == {"timestamp_is_none": 1, "missing_timestamp": 1}


def test_several_files_are_one_log_with_their_domains(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"u::{name}::5::100\n")
    entries = [{"file": "b", "domain": "B", "rows": 1}, {"file": "a", "domain": "A"}]
    source = {"name": "two", "format": DOUBLE_COLONS, "files": entries}
    both = interactions.log("x", [tmp_path / "b", tmp_path / "a"], source, print)
    frame = pl.concat([chunk.frame for chunk in both.chunks()])
    assert frame.select("item", "domain").rows() == [("b", "B"), ("a", "A")]
    entries[0]["rows"] = 2
    with pytest.raises(InputError, match="b: has 1 rows, the file has 2"):
        list(both.chunks())


def test_a_column_of_domains(tmp_path):
    path = written(tmp_path, "a,x,1,Books\na,y,2,\n")
    chunks = list(log(path, {"columns": ["user", "item", "timestamp", "domain"]}).chunks())
    assert chunks[0].frame["domain"].to_list() == ["Books", None]


def test_members_are_read_one_after_the_other(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1::9::5::100\n")
        archive.writestr("y", "2::7::3::99\n")
    assert [row[0] for row in read(tmp_path / "a.zip", DOUBLE_COLONS, ["y", "x"])[0]] == ["2", "1"]


# --- times ---


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("s", "1500000000"),
        ("s", "1.5e9"),
        ("s", " 1500000000.0 "),
        ("ms", "1500000000000"),
        ("us", "1500000000000000"),
        ("ns", "1500000000000000000"),
        ("iso", "2017-07-14 02:40:00"),
        ("iso", "2017-07-14T02:40:00Z"),
        ("iso", "2017-07-14T02:40"),
        ("iso", "2017-07-14T04:40:00+02:00"),
        ("iso", "2017-07-14 04:40:00+02:00"),
        ("iso", "2017-07-14 04:40:00.000+0200"),
        ("iso", "2017-07-14T00:40-02:00"),
        ("iso", "2017-07-14 02:40:00 UTC"),
    ],
)
def test_times_in_all_units(tmp_path, unit, text):
    path = written(tmp_path, f"a,x,{text}\n")
    form = {"columns": ["user", "item", "timestamp"], "time_unit": unit}
    assert read(path, form) == ([("a", "x", None, 1_500_000_000)], {})


def test_days_and_parts_of_a_second(tmp_path):
    form = {"columns": ["user", "item", "timestamp"], "time_unit": "iso"}
    path = written(tmp_path, "a,x,2017-07-14\na,x,2017-07-14 00:00:00.25\n")
    assert [row[3] for row in read(path, form)[0]] == [1_499_990_400, 1_499_990_400.25]


@pytest.mark.parametrize(
    ("unit", "text", "why"),
    [
        ("s", "", "missing_timestamp"),
        ("s", " ", "missing_timestamp"),
        ("s", "yesterday", "timestamp_is_none"),
        ("s", "nan", "missing_timestamp"),
        ("s", "inf", "timestamp_is_none"),
        ("s", "-1", "timestamp_before_1970_or_after_2199"),
        ("s", "1500000000000", "timestamp_before_1970_or_after_2199"),  # milliseconds
        ("s", "1e300", "timestamp_before_1970_or_after_2199"),
        ("iso", "14.7.2017", "timestamp_is_none"),
        ("iso", "1066-10-14", "timestamp_before_1970_or_after_2199"),
    ],
)
def test_what_is_no_time_is_rejected_with_its_reason(tmp_path, unit, text, why):
    form = {"columns": ["user", "item", "timestamp"], "time_unit": unit}
    path = written(tmp_path, f"a,x,{text}\nb,y,{'5' if unit == 's' else '2000-01-01'}\n")
    rows, rejected = read(path, form)
    assert len(rows) == 1
    assert rejected == {why: 1}


def test_times_that_are_not_asked_for_are_not_looked_at(tmp_path):
    path = written(tmp_path, "a,x,never\na,y,5\n")
    form = {"columns": ["user", "item", "timestamp"], "time_unit": "none"}
    assert read(path, form) == ([("a", "x", None, None), ("a", "y", None, None)], {})


# --- rows that are none ---


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b",x,5,100", "missing_user"),
        (b"a,,5,100", "missing_item"),
        (b"a", "missing_item"),
        (b"a,x,5", "missing_timestamp"),
        (b"a,x,five,100", "rating_is_not_a_number"),
        (b"a,x,inf,100", "rating_is_not_a_number"),
        (b"NULL,x,5,100", "missing_user"),
        (b"a,\\N,5,100", "missing_item"),
        (b"a,x,5,None", "missing_timestamp"),
        (b"a,x,5,100,more", "too_many_fields"),
        (b"a,x\0y,5,100", "nul_byte"),
        (b"a,caf\xe9,5,100", "not_utf8"),
        (b'a,"x,5,100', "broken_quotes"),
        (b'a,"x"y,5,100', "broken_quotes"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_rows_that_are_no_interactions_are_counted_and_shown(tmp_path, row, why, place):
    good = [b"b,y,4,100", b"c,z,3,200"]
    path = written(tmp_path, b"\n".join([*good[:place], row, *good[place:]]) + b"\n")
    assert read(path, PLAIN) == ([("b", "y", 4.0, 100), ("c", "z", 3.0, 200)], {why: 1})
    (shown,) = pl.concat(chunk.examples for chunk in log(path, PLAIN).chunks()).rows(named=True)
    assert (shown["file"], shown["line"], shown["reason"]) == (str(path), place + 1, why)
    assert shown["text"]


def test_blank_lines_are_no_rows(tmp_path):
    path = written(tmp_path, "\n1,9,5,100\n\n2,7,3,99\n\n\n")
    (chunk,) = log(path, PLAIN).chunks()
    assert (chunk.rows, chunk.blank, dict(chunk.rejected)) == (2, 4, {})


@pytest.mark.parametrize("content", [",,,login\n", '"",,,login\n'])
def test_a_row_of_other_columns_alone_is_not_blank(tmp_path, content):
    form = {"columns": ["user", "item", "timestamp", "event"]}
    rows, rejected = read(written(tmp_path, content + "a,x,5,\n\n"), form)
    assert (len(rows), rejected) == (1, {"missing_user": 1})


def test_blank_lines_of_json_and_sequences_are_counted(tmp_path):
    path = written(tmp_path, '\n{"who": "a", "what": "x", "when": 5}\n\n{"event": "login"}\n')
    (chunk,) = log(path, {"kind": "jsonl", "columns": NAMED}).chunks()
    assert (len(chunk.frame), chunk.blank, dict(chunk.rejected)) == (1, 2, {"missing_user": 1})
    (chunk,) = log(written(tmp_path, "u a b\n\n \nv a\n"), {"kind": "sequences"}).chunks()
    assert (len(chunk.frame), chunk.blank) == (3, 2)


@pytest.mark.parametrize(
    "number", [b"1e-7", b"-0.0", b"5.0", b"12345678901234567890123", b'["\xc3\xa9"]', b"[1.0]"]
)
def test_values_are_the_same_with_and_without_a_broken_line(tmp_path, number):
    line = b'{"who": "a", "what": %s, "when": 5}\n' % number
    form = {"kind": "jsonl", "columns": NAMED}
    alone, beside = (read(written(tmp_path, text), form)[0] for text in (line, line + b"broken\n"))
    assert alone == beside


def test_a_header_that_is_none_is_not_passed_over(tmp_path):
    with pytest.raises(InputError, match=r"log: line 1 is no header: 'a,x,5,100'"):
        read(written(tmp_path, "a,x,5,100\nb,y,5,100\n"), PLAIN | {"header": True})


def test_an_item_with_more_than_a_time_is_no_row(tmp_path):
    form = {"kind": "sequences", "time_separator": "|"}
    assert read(written(tmp_path, "u a|1|2 b|3\n"), form) == ([("u", "b", None, 3)], {"too_many_fields": 1})


def test_typed_times_that_are_none_are_rejected(tmp_path):
    when = pl.Series([9 * 10**18, 5_000_000, None]).cast(pl.Datetime("us"))
    pl.DataFrame({"who": ["a"] * 3, "what": ["x"] * 3, "when": when}).write_parquet(tmp_path / "log")
    rows, rejected = read(tmp_path / "log", {"kind": "parquet", "columns": NAMED})
    assert rows == [("a", "x", None, 5)]
    assert rejected == {"timestamp_before_1970_or_after_2199": 1, "missing_timestamp": 1}
    days = pl.Series([17_361]).cast(pl.Date)
    pl.DataFrame({"who": ["a"], "what": ["x"], "when": days}).write_parquet(tmp_path / "log")
    assert read(tmp_path / "log", {"kind": "parquet", "columns": NAMED})[0][0][3] == 1_499_990_400


def test_a_missing_rating_is_no_reason(tmp_path):
    assert read(written(tmp_path, "a,x,,100\n"), PLAIN) == ([("a", "x", None, 100)], {})


def test_quotes_hold_separators_quotes_and_line_ends_across_blocks(tmp_path):
    rows = [(f"u{n}", f'a "{n}",\nb\n' * (n % 3) + "x", str(n)) for n in range(200)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path = written(tmp_path, text.getvalue())
    form = {"columns": ["user", "item", "timestamp"]}
    for block in (16, 100, 2**20):
        found, rejected = read(path, form, block=block)
        assert [(u, i, str(int(t))) for u, i, _, t in found] == rows
        assert rejected == {}


def test_a_quote_that_never_closes_costs_one_row(tmp_path):
    content = 'a,"x,1\n' + "".join(f"b,y{n},{n}\n" for n in range(500))
    for block in (40, 2**20):
        form = {"columns": ["user", "item", "timestamp"]}
        rows, rejected = read(written(tmp_path, content), form, block=block)
        assert [row[1] for row in rows] == [f"y{n}" for n in range(500)]
        assert rejected == {"broken_quotes": 1}


def test_of_a_key_that_is_there_twice_the_first_counts_with_and_without_broken_lines(tmp_path):
    line = b'{"who": "a", "what": "x", "who": "b", "when": 5}\n'
    for content in (line, line + b"broken\n"):
        rows, _ = read(written(tmp_path, content), {"kind": "jsonl", "columns": NAMED})
        assert rows == [("a", "x", None, 5)]


@pytest.mark.parametrize(("odd", "why"), [(b"\\ud800", "not_utf8"), (b"a\\u0000", "nul_byte")])
def test_half_a_character_is_no_key(tmp_path, odd, why):
    lines = [b'{"who": "%s", "what": "x", "when": 5}\n' % who for who in (odd, b"a", b"\\ud83d\\ude00")]
    kept = [("a", "x", None, 5), ("\U0001f600", "x", None, 5)]
    for content in (lines, [*lines, b"broken\n"]):
        rows, rejected = read(written(tmp_path, b"".join(content)), {"kind": "jsonl", "columns": NAMED})
        assert rows == kept
        assert rejected[why] == 1
    path = written(tmp_path, b'{"%s": ["x"], "a": ["x"], "b": ["%s"], "c": 5}' % (odd, odd))
    rows, rejected = read(path, {"kind": "sequences"})
    assert (rows, rejected) == ([("a", "x", None, None)], {why: 2, "not_a_list_of_items": 1})


def test_a_record_broken_at_once_behind_an_open_quote_loses_nothing(tmp_path):
    """An open quote at the end of a block of as many lines as a record may have, then one that is wrong."""
    begin = ['a,"x,1', 'b,""z,2', *(f"c,y{n},{n}" for n in range(62))]
    content = "\n".join([*begin, *(f"d,z{n},{n}" for n in range(300))]) + "\n"
    block = sum(len(line) + 1 for line in begin)
    form = {"columns": ["user", "item", "timestamp"]}
    for size in (block, 2**20):
        rows, rejected = read(written(tmp_path, content), form, block=size)
        assert len(rows) == 362
        assert rejected == {"broken_quotes": 2}


def test_a_long_key_is_one_with_and_without_quotes_beside_it(tmp_path):
    key = "k" * 200_000
    form = {"columns": ["user", "item", "timestamp"]}
    for more in ("", '"b",y,2\n'):
        rows, rejected = read(written(tmp_path, f"a,{key},1\n{more}"), form)
        assert rows[0][1] == key
        assert rejected == {}


def test_a_json_object_may_name_a_user_twice_and_begin_with_a_byte_order_mark(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf{"u": ["a", "b"], "u": ["c"]}')
    assert [row[:2] for row in read(path, {"kind": "sequences"})[0]] == [("u", "a"), ("u", "b"), ("u", "c")]


def test_json_lines_that_are_none(tmp_path):
    lines = [
        b'{"who": "a", "what": 1, "when": 5}',
        b"broken",
        b"[1]",
        b"",
        b'{"who": 2.0, "what": "x", "when": "7"}',
    ]
    lines += [b'{"who": null, "what": "x", "when": 7}', b'{"who": "\xff", "what": "x", "when": 7}']
    rows, rejected = read(written(tmp_path, b"\n".join(lines)), {"kind": "jsonl", "columns": NAMED})
    assert rows == [("a", "1", None, 5), ("2", "x", None, 7)]
    assert rejected == {"not_json": 2, "missing_user": 1, "not_utf8": 1}


# --- files that are no logs ---


@pytest.mark.parametrize(
    ("content", "members", "why"),
    [
        (b"<html>not found</html>", ["ratings.dat"], "File is not a zip file"),
        (b"<!DOCTYPE html><p>", [], "it is a web page"),
        (b"PK\x03\x04 cut off", ["ratings.dat"], "File is not a zip file"),
        (b"PK\x03\x04 cut off", [], "File is not a zip file"),
        (b"", [], "it has no interactions"),
        (b"\n\n", [], "it has no interactions"),
        (b"\xef\xbb\xbf", [], "it has no interactions"),
        ("1::9::5::100\n".encode("utf-16"), [], "is UTF-16; legal is UTF-8"),
        (b"PAR1xx", [], "is a Parquet file"),
    ],
)
def test_what_is_not_a_log_is_named_in_one_line(tmp_path, content, members, why):
    path = written(tmp_path, content, "a.zip")
    with pytest.raises(InputError, match=rf"a\.zip.*{why}") as caught:
        read(path, DOUBLE_COLONS, members)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbfa,x,5,100\n")
    assert read(path, PLAIN)[0] == [("a", "x", 5.0, 100)]
    path = written(tmp_path, b"\xef\xbb\xbfwho,what,when\r\na,x,100\r\n")
    assert read(path, HEADED)[0] == [("a", "x", None, 100)]


def test_gzip_is_known_by_its_bytes_and_one_that_breaks_off_is_named(tmp_path):
    whole = gzip.compress(b"1::9::5::100\n" * 1000)
    assert len(read(written(tmp_path, whole, "log.dat"), DOUBLE_COLONS)[0]) == 1000
    for cut in (-1, -9, len(whole) // 2, 11):
        with pytest.raises(InputError, match=r"log\.gz: is not a readable interaction log"):
            read(written(tmp_path, whole[:cut], "log.gz"), DOUBLE_COLONS)


def zipped(tmp_path, name, content=b"1::9::5::100\n"):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("ratings.dat", b"1::9::5::100\n")
    return tmp_path / "a.zip"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x", "C:/x"])
def test_an_archive_with_members_outside_of_it_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"a\.zip: has a member .*: legal are paths inside the archive"):
        read(zipped(tmp_path, name), DOUBLE_COLONS, ["ratings.dat"])


def test_an_archive_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(InputError, match=r"a\.zip: has a link 'link': legal are files"):
        read(zipped(tmp_path, link), DOUBLE_COLONS, ["ratings.dat"])


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = zipped(tmp_path, "big", b"1::9::5::100\n" * 10**5)
    whole = path.read_bytes()
    size = (13 * 10**5).to_bytes(4, "little")
    assert whole.count(size) == 2  # in the member's header and in the directory
    path.write_bytes(whole.replace(size, (13 * 10).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"a\.zip: big: is not a readable interaction log: .*CRC"):
        read(path, DOUBLE_COLONS, ["big"])


def test_a_missing_member_is_named_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"a\.zip: has no member x; it has y, ratings\.dat"):
        read(zipped(tmp_path, "y"), DOUBLE_COLONS, ["x"])


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    path = written(tmp_path, b"x" * (2**24 + 2**17))
    with pytest.raises(InputError, match="has a line of more than 16 MiB: is it text"):
        read(path, PLAIN, block=2**16)


def test_headers(tmp_path):
    with pytest.raises(InputError, match=r"log: has no column when \(timestamp\); its columns: who, what"):
        read(written(tmp_path, "who,what\na,x\n"), HEADED)
    with pytest.raises(InputError, match=r"log: has more than one column who \(user\)"):
        read(written(tmp_path, "who,what,when,who\na,x,1,b\n"), HEADED)
    with pytest.raises(InputError, match="it has no interactions"):
        read(written(tmp_path, "who,what,when\n"), HEADED)
    with pytest.raises(InputError, match="has 1,000,000 columns, legal are 10,000 at most"):
        read(written(tmp_path, ",".join(["who"] * 10**6) + "\n" + "," * 10**6), HEADED)
    wide = ",".join([*(f"c{n}" for n in range(5000)), "who", "what", "when"])
    row = "," * 5000 + "a,x,7"
    assert read(written(tmp_path, f"{wide}\n{row}\n"), HEADED) == ([("a", "x", None, 7)], {})


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"separator": ",", "columns": NAMED}, "need a header"),
        ({"separator": "::", "header": True, "columns": NAMED}, "a separator of one character"),
        ({"kind": "jsonl", "columns": COLUMNS}, "needs a mapping"),
        ({"kind": "sequences", "columns": COLUMNS}, "sequences have none"),
        ({"columns": ["user", "item"]}, "timestamp is missing; time_unit: none if"),
        ({"columns": ["user", "rating", "timestamp"]}, "item is missing"),
        ({"columns": ["user", "item", "user", "timestamp"]}, "user is there more than once"),
        ({}, "user, item, timestamp is missing"),
    ],
)
def test_formats_whose_keys_do_not_go_together_are_one_line(tmp_path, form, why):
    with pytest.raises(InputError, match=rf"test: test: format: .*{why}"):
        read(written(tmp_path, "a,x,100\n"), form)


# --- whatever comes ---


def by_hand(content):
    """The rules for `user,item,rating,timestamp` without quotes, in plain Python: rows and rejected."""

    def number(text):
        try:
            value = float(text)
        except ValueError:
            return None
        return value if abs(value) < float("inf") and "_" not in text else None

    rows, rejected = 0, 0
    for line in content.split(b"\n"):
        fields = line.removesuffix(b"\r").split(b",")
        if not line.removesuffix(b"\r"):
            continue
        try:
            user, item, rating, time, *more = [f.decode() for f in fields] + [""] * (4 - len(fields))
        except UnicodeDecodeError:
            rejected += 1
            continue
        seconds = number(time)
        inside = b"\r" in line.removesuffix(b"\r")
        user, item = ("" if key.strip() == "nan" else key.strip() for key in (user, item))
        rating = "" if rating.strip() == "nan" else rating
        sound = not inside and user and item and not (more and more[0]) and "\0" not in line.decode()
        sound = sound and seconds is not None and 0 <= seconds < 7_258_118_400
        rows += bool(sound and (not rating.strip() or number(rating) is not None))
        rejected += not (sound and (not rating.strip() or number(rating) is not None))
    return rows, rejected


fragment = st.sampled_from(
    [b"a", b"b1", b",", b",", b",", b"\n", b"\n", b"\r\n", b"5", b"3.5", b"100", b"1e9", b" ", b"-1", b"nan",
     b"\0", b"\xff", b"\xc3\xa9", b"::", b"\t", b"\r", b"x,y,1,2\n", b"e", b"."]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(fragment, max_size=60).map(b"".join), st.integers(1, 40))
@example(b"a,x,1,5\n\n,,,\n", 3)
def test_no_row_is_lost_whatever_the_bytes_and_the_blocks(tmp_path_factory, content, block):
    path = written(tmp_path_factory.mktemp("log"), content)
    expected = by_hand(content)
    if content.count(b"\r") > 1 and b"\n" not in content:
        with pytest.raises(InputError, match="its lines end with carriage returns"):
            read(path, PLAIN, block=block)
    elif expected == (0, 0):
        with pytest.raises(InputError, match="it has no interactions"):
            read(path, PLAIN, block=block)
    else:
        chunks = list(log(path, PLAIN).chunks(block))
        rejected = sum(sum(chunk.rejected.values()) for chunk in chunks)
        assert (sum(len(chunk.frame) for chunk in chunks), rejected) == expected


anything = st.one_of(
    st.binary(max_size=300),
    st.lists(fragment | st.sampled_from([b'"', b'"', b'{"', b'":', b"}", b"[", b"]"]), max_size=80).map(
        b"".join
    ),
)
FORMS = [
    PLAIN,
    DOUBLE_COLONS,
    HEADED,
    {"separator": "\t", "header": True, "columns": COLUMNS},
    {"kind": "jsonl", "columns": NAMED},
    {"kind": "sequences"},
    {"kind": "sequences", "time_separator": "|"},
    {"kind": "parquet", "columns": NAMED},
    {"columns": ["user", "item", "timestamp"], "time_unit": "iso"},
    {"columns": ["user", "item"], "time_unit": "none"},
    {"columns": ["user", "item", "timestamp"], "time_format": "%Y%m%d"},
    {"columns": ["user", "item", "timestamp", "timestamp"], "time_format": "%Y %m%d", "comment": "a"},
    {"columns": COLUMNS, "quote": "backslash"},
    {"columns": COLUMNS, "separator": "\t", "quote": "double"},
    {"columns": ["user", "item"], "list_separator": ":", "time_unit": "none"},
    {"kind": "jsonl", "columns": {"user": "who", "item": "what[].id", "timestamp": "when"}},
    {"kind": "sequences", "separator": ","},
]


def read_anything(path, form, block):
    """Chunks of any bytes in any format: rows add up, or one line says what is wrong."""
    try:
        made = list(log(path, form).chunks(block))
    except InputError as error:
        return str(error)
    frame = pl.concat([chunk.frame for chunk in made])
    assert frame.null_count().select("user", "item").row(0) == (0, 0)
    for chunk in made:
        assert min(chunk.rejected.values(), default=1) > 0
        assert len(chunk.examples) <= sum(chunk.rejected.values())
    return frame, sum(chunk.rows for chunk in made)


@settings(max_examples=300)
@given(anything, st.sampled_from(FORMS), st.integers(1, 60))
def test_any_bytes_end_in_rows_or_in_one_line_and_blocks_change_nothing(
    tmp_path_factory, content, form, block
):
    path = written(tmp_path_factory.mktemp("log"), content)
    small, large = read_anything(path, form, block), read_anything(path, form, 2**20)
    if isinstance(large, str):
        assert "\n" not in large
        assert isinstance(small, str)
    else:
        assert small[0].rows() == large[0].rows()
        assert small[1] == large[1]


# Of letters at both ends: what is stripped, or stands for no value, is in tests of its own.
inner = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
keys = inner.map(lambda text: f"k{text}k")


@settings(max_examples=40)
@given(st.lists(st.tuples(keys, keys, st.integers(0, 10**9)), min_size=1, max_size=20), st.integers(1, 60))
def test_what_csv_and_json_write_is_read_back(tmp_path_factory, rows, block):
    folder = tmp_path_factory.mktemp("log")
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    expected = [(u, i, None, t) for u, i, t in rows]
    form = {"columns": ["user", "item", "timestamp"]}
    assert read(written(folder, text.getvalue(), "csv"), form, block=block) == (expected, {})
    lines = "\n".join(json.dumps(dict(zip(["who", "what", "when"], row, strict=True))) for row in rows)
    form = {"kind": "jsonl", "columns": NAMED}
    assert read(written(folder, lines, "json"), form, block=block) == (expected, {})
