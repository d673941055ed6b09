import zipfile

import polars as pl
import pytest
from test_interactions import written
from test_main import one_line, recscale

from conftest import REPO
from recscale.errors import InputError
from recscale.next_item import preview
from recscale.study import schema


def test_it_says_what_would_be_done_and_does_nothing(tmp_path):
    rows = [f"u{u},i{(u + k) % 7},{1_500_000_000 + k},{5 - k % 5}" for u in range(20) for k in range(5)]
    written(tmp_path, "uid,sku,ts,stars\n" + "\n".join([*rows, rows[0], "u1,,1500000000,3"]), "Clicks 1.csv")
    done = recscale("prepare", "--check", "Clicks 1.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert 'clicks-1: format guessed from Clicks 1.csv: {"kind": "text", "separator": ",", "header"' in said
    assert "rows looked at: 102 (all)" in said
    assert "user u0, item i0, rating 5.0, timestamp 2017-07-14 02:40:00" in said
    assert "times: 2017-07-14 02:40 to 2017-07-14 02:40 (UTC)" in said
    assert "no interactions: 1 missing_item, the first in line 103: 'user u1, item -" in said
    assert "would be left out: 1 missing_item, 1 exact_duplicates" in said
    assert "would be kept: 100 interactions of 20 users and 7 items: 80 targets, 40 of them train" in said
    entry = said.splitlines()[-1]
    (tmp_path / "datasets.yaml").write_text(entry)
    assert schema.read_yaml(tmp_path / "datasets.yaml", "datasets").keys() == {"clicks-1"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Clicks 1.csv", "datasets.yaml"]
    done = recscale("fetch", "clicks-1", "--datasets", "datasets.yaml", "--out", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = recscale("prepare", "clicks-1", "--datasets", "datasets.yaml", "--source", "s.json", "--out", "o",
                    cwd=tmp_path)  # fmt: skip
    assert "20 users, 7 items in the catalogue, 80 targets (40 train)" in done.stdout


def test_filters_of_a_dataset_and_a_log_that_is_longer_than_what_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(
        preview.Log, "chunks_of", lambda self, of, block, true=preview.Log.chunks_of: true(self, of, 4000)
    )
    path = written(tmp_path, "".join(f"u{n % 50}\ti{n % 30}\t{n % 5}\t{n}\n" for n in range(3000)))
    source = {"name": "x", "files": [{"file": "log"}]}
    source["format"] = {"separator": "\t", "columns": ["user", "item", "rating", "timestamp"]}
    said = []
    preview.preview([path], "mine", {"sources": [source], "min_rating": 3}, said.append)
    assert not any("guessed" in line or "entry" in line for line in said)
    assert any("(the first of about 0 MB)" in line for line in said)
    assert any("rating_below_minimum" in line for line in said)
    assert "of these first rows alone" in said[-1]


def test_more_rejected_rows_than_are_kept_as_examples(tmp_path):
    rows = (
        [f",x,{10**9 + n}" for n in range(1500)]
        + ["a,x,never"]
        + [f"u{n % 9},i{n},{10**9 + n}" for n in range(400_000)]
    )
    path = written(tmp_path, "uid,sku,ts\n" + "\n".join(rows))
    done = recscale("prepare", "--check", path)
    assert done.returncode == 0, done.stderr
    assert "no interactions: 1,500 missing_user, the first in line 2" in done.stdout


def test_mistakes_are_one_line(tmp_path):
    assert "none.csv: there is no such file" in one_line(recscale("prepare", "--check", "none.csv"))
    path = written(tmp_path, "who,sku,ts\n" + "a,x,2021-01-05\n" * 7 + "a,x,never\n" * 3)
    assert "3 of 10 rows are no interactions (3 timestamp_is_none)" in one_line(
        recscale("prepare", "--check", path)
    )
    assert "give a dataset with --source FILE" in one_line(recscale("prepare"))
    assert "none is not one of ml-1m" in one_line(
        recscale("prepare", "none", "--check", path, "--datasets", REPO / "config/datasets.yaml")
    )


def test_several_files_and_folders_are_one_log_whose_entry_says_their_units(tmp_path):
    head = "uid,sku,ts\n"
    lines = [f"u{n % 5},i{n % 7},{1_500_000_000 + n}" for n in range(60)]
    (tmp_path / "parts").mkdir()
    written(tmp_path / "parts", head + "\n".join(lines[:20]), "1.csv")
    written(tmp_path / "parts", head + "\n".join(lines[20:40]), "2.csv")
    written(tmp_path, head + "\n".join(f"{line}000" for line in lines[40:]), "2024.csv")
    done = recscale("prepare", "--check", "2024.csv", "parts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'times of parts/1.csv are in another unit: {"time_unit": "s"}' in done.stdout
    assert "rows looked at: 60 (all in 3 files)" in done.stdout
    assert "would be kept: 60 interactions of 5 users" in done.stdout
    (tmp_path / "datasets.yaml").write_text(done.stdout.splitlines()[-1])
    entry = schema.read_yaml(tmp_path / "datasets.yaml", "datasets")[
        "2024"
    ]  # a text, though it has digits alone
    (source,) = entry["sources"]
    assert source["format"]["time_unit"] == "ms"
    assert [file.get("time_unit") for file in source["files"]] == [None, "s"]
    done = recscale("fetch", "2024", "--datasets", "datasets.yaml", "--out", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = ["prepare", "2024", "--datasets", "datasets.yaml", "--source", "s.json", "--out", "o"]
    assert "5 users, 7 items in the catalogue" in recscale(*command, cwd=tmp_path).stdout
    written(tmp_path / "parts", head + "u1,i1,1500000000", "3.csv")  # the folder is another one now
    assert "parts: has " in one_line(recscale(*command, cwd=tmp_path))


def test_a_zip_is_read_as_the_entry_of_its_source_says(tmp_path):
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no log")
        archive.writestr("log.dat", "".join(f"u{n % 5}::i{n % 7}::5::{n}\n" for n in range(60)))
    form = {"separator": "::", "columns": ["user", "item", "rating", "timestamp"]}
    sources = [
        {"name": "a", "files": [{"file": "other.csv"}]},
        {"name": "b", "files": [{"file": "log.zip", "members": ["log.dat"]}], "format": form},
    ]
    said = []
    preview.preview([path], "mine", {"sources": sources}, said.append)
    assert any("would be kept: 60 interactions" in line for line in said)
    with pytest.raises(InputError, match=r"\(members\): readme, log.dat"):
        preview.preview([path], "mine", {}, said.append)


def test_hints():
    users = ["bot"] * 30 + [f"u{n}" for n in range(900)]
    items = ["unknown"] * 3 + [f"i{n % 40}" for n in range(927)]
    times = [4 * 10**15] * 2 + [1_500_000_000_000_000] * 928  # the first are of 2096
    frame = pl.DataFrame({"user": users, "item": items, "timestamp": times})
    assert list(preview.hints(frame)) == [
        "user 'bot' has 30 of 930 rows: a bot, a test, or nobody?",
        "2 times are in the future",
        "item 'unknown' in 3 rows: does it stand for none? (drop leaves such rows out)",
    ]
    assert list(preview.hints(frame.slice(100, 50))) == []
