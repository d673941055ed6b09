"""Real MovieLens-1M for the tests that need it: fetched once, as a user's first run would."""

import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import settings

from recscale import interactions, prepare, sequences
from recscale.fetch import fetch

settings.register_profile("recscale", deadline=None)  # shared machines: no timed tests
settings.load_profile("recscale")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ml_1m_source(tmp_path_factory):
    """(paths of the files, the entry of their source in datasets.yaml); kept in raw/ for the next time."""
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    record = fetch("ml-1m", entry, REPO / "raw", print)
    (source,) = [s for s in entry["sources"] if s["name"] == record["source"]]
    return [Path(file["path"]) for file in record["files"]], source


@pytest.fixture(scope="session")
def ml_1m_log(ml_1m_source):
    return interactions.read(*ml_1m_source)


@pytest.fixture(scope="session")
def ml_1m(ml_1m_log):
    """Prepared MovieLens-1M: sequences, items, stats."""
    return prepare.prepare(ml_1m_log, withhold_above=15)


@pytest.fixture(scope="session")
def ml_1m_dir(ml_1m, tmp_path_factory):
    return write_dataset(ml_1m, tmp_path_factory.mktemp("ml-1m"))


@pytest.fixture(scope="session")
def ml_1m_data(ml_1m_dir):
    return sequences.load(ml_1m_dir)


def write_dataset(prepared, folder):
    import json

    frame, items, stats = prepared
    frame.write_parquet(folder / "sequences.parquet")
    items.write_parquet(folder / "items.parquet")
    (folder / "stats.json").write_text(json.dumps(stats))
    return folder


def log_of(histories, seconds=None):
    """A log from one list of item keys a user; times count up within a user unless given."""
    rows = [
        (str(user), str(item), 5.0, place if seconds is None else seconds[user][place])
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    return (
        pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
        .cast({"timestamp": pl.Int64, "rating": pl.Float64})
        .with_columns(domain=pl.lit(None, pl.String))
    )


def made_up(folder):
    """Two hundred made-up users in a loop over 30 items with gaps: learnable, quick."""
    import numpy as np

    rng = np.random.default_rng(0)
    histories = [
        (rng.integers(30) + np.arange(rng.integers(3, 60)) * rng.integers(1, 3)) % 30 for _ in range(200)
    ]
    return write_dataset(prepare.prepare(log_of(histories), 15), folder)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def small_data(tmp_path):
    return made_up(tmp_path)
