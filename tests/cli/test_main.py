import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from conftest import REPO
from recscale.cli import main as cli


def recscale(*args, cwd=REPO):
    command = [sys.executable, "-m", "recscale", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def one_line(done):
    """The error of a verb that stopped as it should: exit code 2, one line on standard error."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("recscale: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_every_verb_says_what_it_reads_and_writes():
    parser = cli.parser()
    (verbs,) = [a for a in parser._actions if a.dest == "verb"]
    for name, sub in verbs.choices.items():
        text = sub.format_help()
        assert "reads: " in text or "writes: " in text or name == "status", name
        assert sub.description, name


def test_the_installed_command_is_the_module():
    command = shutil.which("recscale", path=os.path.dirname(sys.executable))
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "VERB" in done.stdout


def test_unknown_dataset_and_study():
    error = one_line(recscale("fetch", "ml-2m", "--out", "x.json"))
    assert "config/datasets.yaml: ml-2m is not one of ml-1m" in error
    error = one_line(recscale("status", "quik"))
    assert "quik.yaml: there is no such file; config/studies/ has" in error


def test_a_bad_spec_is_one_line(tmp_path):
    for spec in ("{", '{"dataset": "x"}', '{"layers": 3}'):
        error = one_line(recscale("train", "--spec", spec, "--data", tmp_path, "--out", tmp_path))
        assert "spec" in error


def test_data_that_is_not_there_is_one_line(tmp_path):
    spec = '{"dataset":"x","n_layers":1,"d_model":8,"learning_rate":0.1}'
    error = one_line(recscale("train", "--spec", spec, "--data", tmp_path / "no", "--out", tmp_path / "run"))
    assert str(tmp_path / "no") in error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def local(tmp_path):
    """A datasets file whose one dataset is a zip under raw/, sound until a test spoils it."""
    import hashlib

    raw = tmp_path / "raw"
    raw.mkdir()
    path = raw / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r.dat", "".join(f"{u}::{i}::3::{i}\n" for u in "ab" for i in range(5)))
    file = {"file": "log.zip", "members": ["r.dat"], "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    source = {"name": "local", "files": [file]}
    source["format"] = {"separator": "::", "columns": ["user", "item", "rating", "timestamp"]}
    entry = {"title": "t", "terms": "t", "withhold_above": 15, "sources": [source]}
    entry["expect"] = {"rows": 10, "users": 2, "items": 5}
    (tmp_path / "datasets.yaml").write_text(json.dumps({"toy": entry}))
    return tmp_path


def fetch_and_prepare(local, out="out"):
    done = recscale("fetch", "toy", "--datasets", "datasets.yaml", "--out", f"{out}/source.json", cwd=local)
    if done.returncode:
        return done
    return recscale(
        "prepare", "toy", "--datasets", "datasets.yaml", "--source", f"{out}/source.json",
        "--out", out, cwd=local,
    )  # fmt: skip


def test_from_archive_to_sequences(local):
    done = fetch_and_prepare(local)
    assert done.returncode == 0, done.stderr
    stats = json.loads((local / "out/stats.json").read_text())
    assert stats["targets"] == {"all": 8, "train": 4, "valid": 2, "test": 2}
    assert stats["input"]["files"][0]["sha256"]
    assert stats["users"] == {"raw": 2, "kept": 2}
    assert sorted(p.name for p in (local / "out").iterdir()) == [
        "items.parquet",
        "sequences.parquet",
        "source.json",
        "stats.json",
    ]


def test_files_other_than_those_fetched_are_not_prepared(local):
    assert fetch_and_prepare(local).returncode == 0
    args = ("prepare", "toy", "--datasets", "datasets.yaml", "--source", "out/source.json", "--out", "out")
    datasets = json.loads((local / "datasets.yaml").read_text())
    source = datasets["toy"]["sources"][0]
    source["files"].append({"file": "more.dat"})
    (local / "datasets.yaml").write_text(json.dumps(datasets))
    assert "the source log.zip, more.dat; remove out/source.json" in one_line(recscale(*args, cwd=local))
    source["files"].pop()
    datasets["toy"]["sources"].append(source)
    (local / "datasets.yaml").write_text(json.dumps(datasets))
    assert "toy.sources: two of them have one name" in one_line(recscale(*args, cwd=local))
    datasets["toy"]["sources"].pop()
    (local / "datasets.yaml").write_text(json.dumps(datasets))
    with (local / "raw/log.zip").open("ab") as file:
        file.write(b"x")
    assert "when it was fetched; remove out/source.json" in one_line(recscale(*args, cwd=local))


def test_a_truncated_zip_is_one_line_and_nothing_written(local):
    path = local / "raw/log.zip"
    path.write_bytes(path.read_bytes()[:-20])
    assert "raw/log.zip: sha256 is" in one_line(fetch_and_prepare(local))
    assert not (local / "out").exists()


def test_a_truncated_zip_with_a_checksum_that_fits_is_one_line(local):
    """Someone updated the checksum to a broken file: the content still tells."""
    import hashlib

    path = local / "raw/log.zip"
    path.write_bytes(path.read_bytes()[:-20])
    datasets = json.loads((local / "datasets.yaml").read_text())
    datasets["toy"]["sources"][0]["files"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (local / "datasets.yaml").write_text(json.dumps(datasets))
    assert "r.dat: is not a readable interaction log" in one_line(fetch_and_prepare(local))


def test_a_full_disk_is_one_line_and_nothing_half_written(local, small_disk):
    (small_disk / "full").write_bytes(bytes(60 * 1024))  # of 64
    error = one_line(fetch_and_prepare(local, out=str(small_disk)))
    assert "no space left on device" in error
    assert {p.name for p in small_disk.iterdir()} <= {"full", "source.json"}
