import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO
from recscale.bench import compare as bench
from recscale.bench import measure
from recscale.bench.compare import PEER_SIZES, PEERS, Cell, cells
from recscale.errors import InputError

BENCH = [sys.executable, "-m", "recscale", "bench"]


def test_the_table_is_written_and_holds_together(tmp_path):
    """One small cell, really measured: the share is the row's FLOPs over the machine's rate."""
    command = [*BENCH, "--sizes", "2x64", "--items", "300", "--precision", "float32", "--rounds", "1"]
    command += ["--seconds", "1", "--threads", "1", "--json", str(tmp_path / "b.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads((tmp_path / "b.json").read_text())
    ours, bfloat16, float32 = rows
    assert (ours["library"], ours["size"], ours["catalogue"]) == ("recscale", "2x64", 300)
    assert (bfloat16["precision"], float32["precision"]) == ("bfloat16", "float32")
    share = ours["flops_per_second"] / float32["flops_per_second"]
    assert ours["share_of_matrix_rate"] == pytest.approx(share)
    assert 0 < share < 1
    # 6 N + attention a position, 6 d n_items a target; as many of one as of the other
    a_target = 6 * 12 * 2 * 64**2 + 12 * 2 * 64 * 50 + 6 * 64 * 300
    assert ours["flops_per_second"] == pytest.approx(ours["targets_per_second"] * a_target)
    assert ours["peak_bytes"] > 2**26
    assert "matrix products" in done.stdout


def test_unknown_sizes_and_missing_environments_are_one_line(tmp_path):
    for more, message in (
        (["--sizes", "9x9"], "recscale: --sizes: 9x9 is not one of 2x64, 4x128, 12x256, 24x512"),
        (["--quality", "rectools"], "--quality: needs --peers DIR"),
        (["--quality", "rectools", "--peers", str(tmp_path)], "make bench-peers makes the environments"),
    ):
        done = subprocess.run([*BENCH, *more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_every_peer_has_a_script_a_lock_and_a_size():
    for name in PEERS:
        assert (REPO / f"benchmarks/peers/{name}_sasrec.py").exists()
        lock = (REPO / f"benchmarks/peers/{name}.lock.txt").read_text().split()
        assert all("==" in line for line in lock)
        assert "torch==2.13.0" in lock
    made = cells(["2x64", "12x256"], [26744, 3706], ["float32"], Path("peers"))
    found = {(c.library, c.size, c.n_items) for c in made if c.library != "recscale"}
    assert found == {(name, size, 3706) for name, sizes in PEER_SIZES.items() for size in sizes}


def test_made_up_windows_are_full():
    data = measure.made_up({"max_len": 7, "seed": 1, "n_items": 40}, 5)
    assert data.train_length.tolist() == [8] * 5
    assert data.items.min() >= 1
    assert data.items.max() <= 40


def test_a_failing_measurement_is_one_line():
    with pytest.raises(InputError, match="recscale 2x64: rate: ended with 1: KeyError"):
        bench.measure(Cell("recscale", "2x64", 3), "rate", {"threads": 1})
