import gzip
import json

import polars as pl
import pytest
from hypothesis import given, settings
from test_interactions import anything, read, written

from recscale.data import formats, interactions
from recscale.errors import InputError

MOVIELENS = {"separator": "::", "columns": ["user", "item", "rating", "timestamp"]}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("1::1193::5::978300760\n1::661::3::978302109\n", {"kind": "text", **MOVIELENS}),
        ("196\t242\t3\t881250949\n186\t302\t3\t891717742", {"kind": "text", **MOVIELENS, "separator": "\t"}),
        (
            "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n",
            {
                "kind": "text", "separator": ",", "header": True,
                "columns": {
                    "user": "userId", "item": "movieId", "timestamp": "timestamp", "rating": "rating"
                },
            },
        ),
        (
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\tA, B\t5\t978300760\n",
            {
                "kind": "text", "separator": "\t", "header": True,
                "columns": {
                    "user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float",
                    "rating": "rating:float",
                },
            },
        ),
        (
            'when;"customer id";SKU\n2024-01-01T10:00:00Z;7;x\n',
            {
                "kind": "text", "separator": ";", "header": True,
                "columns": {"user": "customer id", "item": "SKU", "timestamp": "when"}, "time_unit": "iso",
            },
        ),
        (
            "a,x,1500000000000\nb,y,1500000000001\n",
            {"kind": "text", "separator": ",", "columns": ["user", "item", "timestamp"], "time_unit": "ms"},
        ),
        (
            '{"reviewerID": "A", "asin": "B", "overall": 5.0, "unixReviewTime": 1441324800, "x": {"y": 1}}\n',
            {
                "kind": "jsonl",
                "columns": {
                    "user": "reviewerID", "item": "asin", "timestamp": "unixReviewTime", "rating": "overall"
                },
            },
        ),
        (
            "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n",
            {
                "kind": "text", "separator": ",", "columns": ["user", "timestamp", "item", "unused"],
                "time_unit": "iso",
            },
        ),
        ("A1 B1 B2 B3\nA2 B4 B5\n", {"kind": "sequences"}),
        ("0 5|1381536000 6|1381536000\n1 7|1357948800\n", {"kind": "sequences", "time_separator": "|"}),
        ('{\n  "0": [\n    1,\n    2\n  ]\n}\n', {"kind": "sequences"}),
        ('{"0": [1, 2], "1": [3]}', {"kind": "sequences"}),
    ],
)  # fmt: skip
def test_what_is_written_so_is_guessed_so_and_read(tmp_path, content, form):
    path = written(tmp_path, content)
    assert formats.guess(path, None) == form
    rows, rejected = read(path, form)
    assert rows
    assert rejected == {}
    path = written(tmp_path, gzip.compress(content.encode()), "log.gz")
    assert formats.guess(path, None) == form


def test_parquet_by_its_schema_and_values(tmp_path):
    path = tmp_path / "log"
    columns = {"user": "uid", "item": "sku", "timestamp": "at"}
    frame = pl.DataFrame({"uid": [1], "sku": ["x"], "at": [1_500_000_000_000]})
    frame.write_parquet(path)
    assert formats.guess(path, None) == {"kind": "parquet", "columns": columns, "time_unit": "ms"}
    frame.with_columns(pl.col("at").cast(pl.Datetime("ms"))).write_parquet(path)
    assert formats.guess(path, None) == {"kind": "parquet", "columns": columns}
    assert read(path, formats.guess(path, None))[0] == [("1", "x", None, 1_500_000_000)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has no interactions"),
        (b"<html>", "it is a web page"),
        (b"[1, 2]", "is a JSON array"),
        (b"hello\nworld\n", "no separator was found"),
        (b"1,2,3\n4,5,6\n", "no header and no column of times; name its format"),
        (b"a,1,2,3,1500000000\n", "no header and 5 columns"),
        (b"who,sku\na,x\n", "no column is known as timestamp; .* time_unit: none"),
        (b"colour,size\nred,L\n", "no column is known as user; its columns: colour, size; name it in"),
        (b'{"asin": "x", "title": "y"}\n', "no column is known as user; its columns: asin, title"),
    ],
)
def test_what_cannot_be_guessed_is_one_line_that_says_what_to_name(tmp_path, content, why):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=f"log: .*{why}") as caught:
        formats.guess(path, None)
    assert "\n" not in str(caught.value)


def test_a_source_without_a_format_is_guessed_and_said(tmp_path):
    path, said = written(tmp_path, "uid,sku,ts\na,x,1500000000\n"), []
    source = {"name": "mine", "files": [{"file": "log"}]}
    log = interactions.log("my-log", [path], source, said.append)
    assert "my-log: format guessed from" in said[0]
    assert json.loads(said[0].split(": ", 2)[2]) == log.source["format"]
    assert next(log.chunks()).frame["user"].to_list() == ["a"]


@settings(max_examples=300)
@given(anything)
def test_any_bytes_give_a_format_that_the_schema_knows_or_one_line(tmp_path_factory, content):
    from recscale.study import schema

    path = written(tmp_path_factory.mktemp("log"), content)
    try:
        form = formats.guess(path, None)
    except InputError as error:
        form, line = None, str(error)
    if form is None:
        assert "\n" not in line
    else:
        source = {"name": "a", "format": form, "files": [{"file": "log"}]}
        schema.check({"x": {"sources": [source]}}, "datasets", "datasets.yaml")
