"""Do 90 % intervals hold the planted constants nine times in ten, at the designs that people have?

    python benchmarks/law_coverage.py --draws 500 --cores 2

Prints the table of docs/laws.md: a row a design, the share of draws whose interval holds each constant (an
open end holds everything on its side), the share of draws with any open end, and the statuses.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from recscale.laws import fit as fits
from recscale.laws import forms
from recscale.laws.fit import fit_law
from recscale.laws.forms import FORMS

LADDER = {"E": 5.0, "X0": 2000.0, "alpha": 0.3}
JOINT = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
LEVEL = 0.9


@dataclass(frozen=True)
class Design:
    """Runs of a planted law. noise: sd of a run, of ln loss; each of its `rows` has a third of it besides."""

    name: str
    form: str
    x: dict[str, np.ndarray]  # axis -> [runs], or [runs, rows]
    truth: dict[str, float]
    noise: float
    rows: int = 1


def _ladder(runs: int, rows: int) -> Design:
    x = np.geomspace(768, 768 * 4.0 ** (runs - 1), runs)
    name = f"{runs} sizes, {rows} row{'s' * (rows > 1)} a run"
    return Design(name, "saturating_power", {"x": x}, LADDER, 0.003, rows)


def _joint(n: list[float], d: list[float], rows: int, noise: float, shape: str) -> Design:
    """Rows of a run are its checkpoints, from a twentieth of its data on."""
    part = np.arange(1, rows + 1) / rows
    sizes = np.repeat(np.array(n)[:, None], rows, axis=1)
    x = {"N": sizes, "D": np.array(d)[:, None] * part}
    name = f"{len(n)} runs of N and D ({shape}), {rows} row{'s' * (rows > 1)} a run"
    return Design(name, "hoffmann", x, JOINT, noise, rows)


def _curves(sizes: int, rows: int) -> Design:
    """Each size trained once, from a twentieth to twenty times the 20 targets a parameter."""
    n = np.repeat(np.geomspace(1e7, 1e9, sizes)[:, None], rows, axis=1)
    x = {"N": n, "D": 20 * n * np.geomspace(0.05, 20, rows)}
    return Design(f"{sizes} curves of {rows} rows", "hoffmann", x, JOINT, 0.003, rows)


def designs() -> list[Design]:
    """Ladders of one axis, and joint laws as small as people fit them."""
    found = [_ladder(runs, rows) for runs in (6, 7, 8) for rows in (1, 20)]
    grids = {
        6: ("3 x 2", np.meshgrid(np.geomspace(1e7, 1e9, 3), [1e9, 1e11])),
        8: ("4 x 2", np.meshgrid(np.geomspace(1e7, 1e9, 4), [1e9, 1e11])),
        12: ("4 x 3", np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 3))),
        20: ("5 x 4", np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 4))),
    }
    cross = (
        [1e7, 3e7, 1e8, 3e8, 1e9, 3e9, 1e8, 1e8, 1e8, 1e8, 1e8],
        [1e11] * 6 + [1e9, 3e9, 1e10, 3e10, 3e10],
    )
    for runs, rows in ((6, 1), (6, 20), (8, 1), (8, 20), (11, 1), (11, 20), (12, 1), (20, 1)):
        if runs == 11:
            found.append(_joint(*cross, rows, 0.003, "a cross"))
        else:
            shape, (n, d) = grids[runs]
            found.append(_joint(n.ravel().tolist(), d.ravel().tolist(), rows, 0.003, shape))
    return [*found, *(_curves(sizes, 12) for sizes in (6, 8, 11, 14, 20))]


def draw(design: Design, seed: int) -> tuple[dict[str, bool], bool, str, dict[str, float]]:
    """Which constants one planted table's intervals hold, whether an end is open, the status, and widths."""
    form = FORMS[design.form]
    x = {axis: values if values.ndim == 2 else np.repeat(values[:, None], design.rows, 1)
         for axis, values in design.x.items()}  # fmt: skip
    runs = len(next(iter(x.values())))
    rng = np.random.default_rng([seed, runs, design.rows])
    scatter = design.noise * rng.standard_normal((runs, 1))
    if design.rows > 1:
        scatter = scatter + design.noise / 3 * rng.standard_normal((runs, design.rows))
    flat = {axis: values.ravel() for axis, values in x.items()}
    y = form.predict(flat, design.truth) * np.exp(scatter.ravel())
    groups = np.repeat(np.arange(runs), design.rows)
    found = fit_law(flat, y, law="planted", form=form, level=LEVEL, groups=groups, resamples=300)
    holds, open_end, widths = {}, False, {}
    for name, value in design.truth.items():
        low, high = found.intervals[name]
        holds[name] = (low is None or low <= value) and (high is None or value <= high)
        open_end |= low is None or high is None
        widths[name] = np.nan if low is None or high is None else (high - low) / value
    return holds, open_end, str(found.status), widths


def _quick() -> None:
    """A tenth of the grid of starts, and no band: what is measured here does not depend on them."""
    fits.BAND_POINTS = 2
    forms.LOG_TERMS, forms.LOG_E = np.array([5.0, 10.0]), np.array([0.0, 0.5])
    forms.EXPONENTS = np.array([0.3, 0.5])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", default="", help="designs whose name has this text")
    parser.add_argument("--method", choices=("usual", "profile", "bootstrap"), default="usual")
    args = parser.parse_args()
    if args.method != "usual":
        fits.MANY = 10**9 if args.method == "profile" else 4
    _quick()
    print(
        "| design | " + "constants: share held | any end open | median width / value | statuses |", flush=True
    )
    with ProcessPoolExecutor(args.cores) as pool:
        for design in designs():
            if args.only not in design.name:
                continue
            rows = list(pool.map(partial(draw, design), range(args.draws), chunksize=8))
            shares = {name: np.mean([row[0][name] for row in rows]) for name in design.truth}
            widths = {name: np.nanmedian([row[3][name] for row in rows]) for name in design.truth}
            statuses = Counter(row[2] for row in rows)
            told = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            wide = ", ".join(f"{name} {width:.2f}" for name, width in widths.items())
            counts = ", ".join(f"{status} {n / len(rows):.2f}" for status, n in statuses.most_common())
            still = np.mean([row[1] for row in rows])
            print(f"| {design.name} | {told} | {still:.2f} | {wide} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
