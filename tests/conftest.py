"""Real MovieLens-1M for the tests that need it: fetched once, as a user's first run would."""

import fcntl
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import settings

from recscale.data import interactions
from recscale.data.fetch import fetch
from recscale.data.rows import Choice
from recscale.next_item import prepare as module
from recscale.next_item import sequences

# The same examples every time, and no timed tests on shared machines; `make test-random` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

REPO = Path(__file__).resolve().parents[1]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As under nohup, or in the background of a script: what the tests start would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ml_1m_log():
    """The log of MovieLens-1M; its archive is kept in raw/ for the next time."""
    entry = yaml.safe_load((REPO / "config/datasets.yaml").read_text())["ml-1m"]
    (REPO / "raw").mkdir(exist_ok=True)
    with (REPO / "raw/.tests.lock").open("w") as lock:  # tests run in several processes: one downloads
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = fetch("ml-1m", entry, REPO / "raw", print)
    return log_of_source(entry, record)


def log_of_source(entry, record):
    """The log of the source that `record` (of fetch) names."""
    (source,) = [s for s in entry["sources"] if s["name"] == record["source"]]
    return interactions.log("ml-1m", [Path(file["path"]) for file in record["files"]], source, print)


@pytest.fixture(scope="session")
def ml_1m_dir(ml_1m_log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ml-1m")
    prepared(ml_1m_log, folder, withhold_above=15)
    return folder


@pytest.fixture(scope="session")
def ml_1m(ml_1m_dir):
    """Prepared MovieLens-1M: sequences, items, stats."""
    return read_dataset(ml_1m_dir)


@pytest.fixture(scope="session")
def ml_1m_data(ml_1m_dir):
    return sequences.load(ml_1m_dir)


def prepared(log, folder, max_memory=module.MAX_MEMORY, **dataset):
    """Prepare a log into a folder, as the command does; returns read_dataset of it."""
    stats = module.prepare(log, dataset, folder, max_memory)
    (folder / "stats.json").write_text(json.dumps(stats))
    return read_dataset(folder)


def prepare(log, withhold_above=15, max_memory=module.MAX_MEMORY, **dataset):
    """Sequences, items and stats; rows that repeat stay unless asked otherwise."""
    dataset = {"drop_duplicates": False, "withhold_above": withhold_above} | dataset
    with tempfile.TemporaryDirectory() as folder:
        return prepared(log, Path(folder), max_memory, **dataset)


def write_dataset(tables, folder):
    sequences_, items, stats = tables
    sequences_.write_parquet(folder / "sequences.parquet")
    items.write_parquet(folder / "items.parquet")
    (folder / "stats.json").write_text(json.dumps(stats))
    return folder


def read_dataset(folder):
    tables = (pl.read_parquet(folder / f"{name}.parquet") for name in ("sequences", "items"))
    return *tables, json.loads((folder / "stats.json").read_text())


class FrameLog:
    """A log that is a table in memory: user, item, rating, timestamp (seconds; null: order only), domain."""

    name, short, choice, whole = "made up", False, Choice(), False

    def __init__(self, frame, size=1, rows=1000):
        self.frame, self.size, self.rows = frame, size, rows

    def bytes(self):
        return self.size

    def chunks(self, block):
        nothing = pl.DataFrame(schema=interactions.REJECTED)
        for part in self.frame.with_columns(pl.col("timestamp") * 1_000_000).iter_slices(self.rows):
            yield interactions.Chunk(part, {}, nothing, 0)


def log_of(histories, seconds=None):
    """A log from one list of item keys a user; times count up within a user unless given."""
    rows = [
        (str(user), str(item), 5.0, place if seconds is None else seconds[user][place], None)
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    return FrameLog(pl.DataFrame(rows, schema=interactions.COLUMNS, orient="row"))


def made_up(folder):
    """Two hundred made-up users in a loop over 30 items with gaps: learnable, quick."""
    import numpy as np

    rng = np.random.default_rng(0)
    histories = [
        (rng.integers(30) + np.arange(rng.integers(3, 60)) * rng.integers(1, 3)) % 30 for _ in range(200)
    ]
    prepared(log_of(histories), folder)
    return folder


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
