"""How fast training and evaluation are here: against the machine, and against other libraries.

Every measurement is a process of its own; rounds alternate between all that is compared, so that a
busy machine is busy for all; medians over the rounds are reported, ratios only within one round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recscale.errors import InputError

HEADS = {"2x64": 2, "4x128": 4, "12x256": 8, "24x512": 8}  # LSRM's sizes of at most 75.5M
PEERS = {"rectools": "RecTools", "recbole": "RecBole"}
# RecBole computes a window for every target: at larger sizes a step takes minutes.
PEER_SIZES = {"rectools": ("2x64", "12x256"), "recbole": ("2x64",)}
SCRIPTS = Path(__file__).resolve().parents[3] / "benchmarks" / "peers"
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One thing to measure. `allocator`: of a peer, `keep` is what recscale asks of glibc itself."""

    library: str
    size: str
    n_items: int
    precision: str = ""
    allocator: str = ""


def cells(
    sizes: Sequence[str], catalogues: Sequence[int], precisions: Sequence[str], peers: Path | None
) -> list[Cell]:
    """What one round measures; peers at the smallest catalogue."""
    made = [Cell("recscale", s, n, p) for s in sizes for n in catalogues for p in precisions]
    for name in PEERS if peers else ():
        made += [
            Cell(name, size, min(catalogues), allocator=allocator)
            for size in sizes if size in PEER_SIZES[name]
            for allocator in ("default", "keep")
        ]  # fmt: skip
    return made


def settings(cell: Cell, seconds: float, threads: int, seed: int = 1) -> Row:
    """What a measuring process is given: 64 windows of 50 items, as benchmarks/README.md says."""
    n_layers, d_model = (int(part) for part in cell.size.split("x"))
    return {
        "n_layers": n_layers, "d_model": d_model, "n_heads": HEADS[cell.size], "max_len": 50, "batch": 64,
        "n_items": cell.n_items, "precision": cell.precision, "seconds": seconds, "threads": threads,
        "seed": seed, "users": 6040 if cell.size == "2x64" else 512,
    }  # fmt: skip


def measure(cell: Cell, mode: str, content: Row, peers: Path | None = None) -> list[Row]:
    """The result lines of one process. Raises InputError with its last line where it fails."""
    command = [sys.executable, "-m", "recscale.bench.measure"]
    if cell.library in PEERS:
        python = (peers or Path()) / cell.library / "bin" / "python"
        if not python.exists():
            raise InputError(f"{python}: there is no such file; make bench-peers makes the environments")
        command = [str(python), str(SCRIPTS / f"{cell.library}_sasrec.py")]
    environment = os.environ | (KEEP if cell.allocator == "keep" else {})
    environment |= {"OMP_NUM_THREADS": str(content["threads"])}
    done = subprocess.run(
        [*command, mode, json.dumps(content)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{cell.library} {cell.size}: {mode}: ended with {done.returncode}: {last}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def bench(
    sizes: Sequence[str],
    catalogues: Sequence[int],
    precisions: Sequence[str],
    rounds: int,
    seconds: float,
    threads: int,
    peers: Path | None,
    say: Say,
) -> list[Row]:
    """One row a cell: medians over the rounds of targets and users a second, share of the matrix rate.

    `share_of_matrix_rate`: model FLOPs a second (study.training_flops) over the machine's matrix
    product rate in the precision of the row, measured in the same round.
    """
    for size in sizes:
        if size not in HEADS:
            raise InputError(f"--sizes: {size} is not one of {', '.join(HEADS)}")
    found: dict[Cell, list[Row]] = {cell: [] for cell in cells(sizes, catalogues, precisions, peers)}
    machine = Cell("recscale", sizes[0], 1)
    rates: list[Row] = []
    for number in range(1, rounds + 1):
        (machine_rate,) = measure(machine, "matrix_rate", {"threads": threads})
        rates.append(machine_rate)
        say(
            f"round {number}/{rounds}: matrix products bfloat16 {machine_rate['bfloat16'] / 1e9:,.0f}, "
            f"float32 {machine_rate['float32'] / 1e9:,.0f} GFLOP/s"
        )
        for cell in found:
            content = settings(cell, seconds, threads)
            row = measure(cell, "rate", content, peers)[-1]
            if cell.size in PEER_SIZES["rectools"] and cell.precision in ("", precisions[0]):
                row["users_per_second"] = measure(cell, "evaluate", content, peers)[-1]["users_per_second"]
            if "flops_per_second" in row:
                row["share_of_matrix_rate"] = row["flops_per_second"] / machine_rate[row["precision"]]
            found[cell].append(row)
            say(f"  {row['library']} {cell.size} {cell.n_items} {row['precision']} {cell.allocator}: "
                f"{row['targets_per_second']:,.0f} targets/s")  # fmt: skip
    rows = [_summary(cell, lines) for cell, lines in found.items()]
    for name in ("bfloat16", "float32"):
        rows.append({"library": "matrix products", "precision": name} | {
            "flops_per_second": statistics.median(rate[name] for rate in rates)})  # fmt: skip
    return rows


def _summary(cell: Cell, lines: Sequence[Row]) -> Row:
    keys = (
        "targets_per_second",
        "users_per_second",
        "share_of_matrix_rate",
        "flops_per_second",
        "peak_bytes",
    )
    medians = {key: statistics.median(line[key] for line in lines) for key in keys if key in lines[0]}
    about = {"library": lines[0]["library"], "version": lines[0]["version"], "size": cell.size}
    about |= {"catalogue": cell.n_items, "precision": lines[0]["precision"], "allocator": cell.allocator}
    return about | medians | {"rounds": len(lines)}


def headline(
    peer: str,
    data: Path,
    seeds: Iterable[int],
    patience: int,
    limit: float,
    threads: int,
    peers: Path,
    say: Say,
) -> list[Row]:
    """Seconds to a peer's own best valid NDCG@10 on MovieLens-1M at 2x64: its and ours, a row a seed.

    The same loss, length of input and batch. recscale trains three epochs by a cosine (as the study
    quick does); the peer as long as its valid NDCG@10 gets better, or until `limit` seconds.
    """
    rows = []
    for seed in seeds:
        ours, theirs = Cell("recscale", "2x64", 0), Cell(peer, "2x64", 0, allocator="keep")
        content = settings(theirs, 0, threads, seed) | {"data": str(data.resolve()), "learning_rate": None}
        content |= {"max_epochs": 500, "patience": patience, "max_seconds": limit}
        best = measure(theirs, "quality", content, peers)[-1]
        recipe = {"goal": best["best_ndcg10"], "learning_rate": 0.012, "epochs": 3, "stride": 25}
        own = measure(ours, "quality", content | recipe | {"dropout": 0.0})[-1]
        reached = own["seconds_to_goal"]
        rows.append({
            "peer": PEERS[peer], "seed": seed, "peer_ndcg10": best["best_ndcg10"],
            "peer_seconds": best["seconds_to_best"], "peer_stopped": best["stopped"],
            "recscale_ndcg10": own["best_ndcg10"], "recscale_seconds": reached,
            "ratio": best["seconds_to_best"] / reached if reached else None,
        })  # fmt: skip
        say(f"  seed {seed}: {rows[-1]}")
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal."""
    frame = pd.DataFrame(rows)
    for key, form in (("targets_per_second", "{:,.0f}"), ("users_per_second", "{:,.0f}"),
                      ("share_of_matrix_rate", "{:.0%}")):  # fmt: skip
        if key in frame:
            frame[key] = [form.format(v) if pd.notna(v) else "" for v in frame[key]]
    if "peak_bytes" in frame:
        frame["peak_bytes"] = [f"{v / 2**30:.2f} GiB" if pd.notna(v) else "" for v in frame["peak_bytes"]]
    if "flops_per_second" in frame:
        frame["flops_per_second"] = [
            f"{v / 1e9:,.0f} G" if pd.notna(v) else "" for v in frame["flops_per_second"]
        ]
    return str(frame.fillna("").to_string(index=False))
