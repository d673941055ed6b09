"""Time `recscale prepare` on made-up logs, against the same in plain pandas.

    python benchmarks/prepare.py [--rows 2000000 20000000] [--pandas] [--rounds 3] [--max-memory 2GB]

For each number of rows: makes the log (benchmarks/made_up_log.py) where it is not there yet, then in turn,
each in a process of its own, prepares it (29 files, exact duplicates, domains merged, 30-core) with
recscale and, if asked, with pandas. Prints medians of seconds and peak memory, Python's start included, and
the median of the rounds' ratios. The log lies in --folder (default: the system's temporary one) and stays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent

# What a reader of the protocol would write first; the filters are those of the made-up datasets.yaml.
PANDAS = """
import sys
from pathlib import Path
import pandas as pd
columns = ["item", "user", "rating", "timestamp"]
files = sorted(Path(sys.argv[1]).glob("*.csv"))
parts = [pd.read_csv(f, header=None, names=columns).assign(domain=n) for n, f in enumerate(files)]
log = pd.concat(parts, ignore_index=True)
log = log.drop_duplicates(columns)
while True:
    before = len(log)
    log = log[log.groupby("user")["item"].transform("size") >= 30]
    log = log[log.groupby("item")["user"].transform("size") >= 30]
    if len(log) == before:
        break
log = log.sort_values(["user", "timestamp"], kind="stable")
log["id"] = pd.factorize(log["item"])[0] + 1
sequences = log.groupby("user", sort=False).agg(items=("id", list), timestamps=("timestamp", list))
sequences.reset_index().to_parquet(Path(sys.argv[2]) / "pandas.parquet")
print(len(log), len(sequences), log["item"].nunique())
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and GiB at the peak. A shell stands between, so that the peak is the command's own."""
    begun = time.perf_counter()
    child = subprocess.Popen(["sh", "-c", '"$@"; exit $?', "sh", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command[:4]} ended with {status}")
    return time.perf_counter() - begun, usage.ru_maxrss / 2**20


def measure(rows: int, pandas: bool, rounds: int, max_memory: str, folder: Path) -> None:
    """One line a number of rows."""
    log, out = folder / f"log-{rows}", folder / "out"
    if not (log / "datasets.yaml").exists():
        subprocess.run([sys.executable, str(HERE / "made_up_log.py"), str(log), str(rows)], check=True)
    out.mkdir(exist_ok=True)
    files = [{"path": str(path)} for path in sorted(log.glob("*.csv"))]
    (out / "source.json").write_text(json.dumps({"source": "made up", "files": files}))
    ours = [sys.executable, "-m", "recscale", "prepare", "made-up", "--datasets", str(log / "datasets.yaml")]
    ours += ["--source", str(out / "source.json"), "--out", str(out), "--max-memory", max_memory]
    commands = {"recscale": ours}
    if pandas:
        commands["pandas"] = [sys.executable, "-c", PANDAS, str(log), str(out)]
    found = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(timed(command))
    text = [f"{rows:,} rows"]
    for name, results in found.items():
        seconds, peak = (statistics.median(column) for column in zip(*results, strict=True))
        text.append(f"{name} {seconds:.1f} s, {peak:.2f} GiB")
    if pandas:
        ratios = [b[0] / a[0] for a, b in zip(found["recscale"], found["pandas"], strict=True)]
        text.append(f"pandas takes {statistics.median(ratios):.1f} times as long")
    print("; ".join(text), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 20_000_000])
    parser.add_argument("--pandas", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-memory", default="2GB")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "recscale-made-up")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for rows in asked.rows:
        measure(rows, asked.pandas, asked.rounds, asked.max_memory, asked.folder)
