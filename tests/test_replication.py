"""docs/replication.md says what the published tables say: each figure of ours is computed here again."""

import json
from functools import cache

import pandas as pd
import pytest

from conftest import REPO
from recscale.laws.result import Fit
from recscale.laws.words import summary

ML, AMAZON = "lsrm-ml-1m", "lsrm-domains-small"
LADDER = ["1x32", "2x32", "2x64", "3x96", "4x128", "8x128", "8x192", "12x256"]
TRAINED = ["1x32", "2x64", "3x96", "4x128", "8x192", "12x256"]  # that the tasks are done with


@cache
def table(study, name):
    return pd.read_csv(REPO / f"results/published/{study}/{name}.csv")


def law(study, name):
    return Fit.read(REPO / f"results/published/{study}/laws/{name}.json")


def loss(size, study=ML, **keys):
    """Test loss of the one run of lsrm-ml-1m with these settings."""
    rows = table(study, "points")
    keys = {"epochs": 4, "seed": 1, "data_fraction": 1.0, "schedule": "cosine", "dropout": 0.2} | keys
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    (found,) = rows.loc[rows["size"] == size, "test_loss"]
    return found


def cell(task, size, metric, group, study=ML, x=None, **keys):
    """A row of the table of tasks."""
    rows = table(study, "tasks")
    keys = {"task": task, "size": size, "metric": metric, "group": group, "seed": 1} | keys
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    rows = rows[rows["x"].isna() if x is None else rows["x"] == x]
    (found,) = rows.itertuples()
    return found


def change(row):
    return f"{100 * row.change:+.0f} % [{100 * row.change_lo:+.0f}, {100 * row.change_hi:+.0f}]"


def laws():
    of_ml = [(ML, f"loss_vs_N{epochs}") for epochs in ("", "_four_epochs", "_one_epoch")]
    for study, name in (*of_ml, (AMAZON, "loss_vs_N")):
        yield summary(law(study, name)).partition(": ")[2]


def held_out():
    for point in law(ML, "loss_vs_N").held_out + law(ML, "loss_vs_N_four_epochs").held_out:
        yield (
            f"{point['x']:,.0f} measured {point['measured']:.3f}, predicted {point['predicted']:.3f} "
            f"({100 * abs(point['error']):.2f} %, {point['extrapolation']:.1f} times the largest fitted; "
            f"the largest fitted itself {100 * point['baseline_error']:.2f} %)"
        )


def losses():
    """Every size of the ladder after eight epochs, after four and after one."""
    for epochs in (8, 4, 1):
        yield ", ".join(f"{loss(size, epochs=epochs):.3f}" for size in LADDER)


def pools():
    for size in ("2x64", "4x128"):
        yield ", ".join(f"{loss(size, data_fraction=f):.3f}" for f in (1.0, 0.5, 0.25, 0.1, 0.05))
        yield summary(law(ML, f"loss_vs_D_{size}")).partition(": ")[2]


def repetition():
    for size in ("1x32", "4x128"):
        rows = table(ML, "curves")
        constant = table(ML, "points").query("schedule == 'constant' and epochs == 8")["run"]
        rows = rows[rows["run"].isin(constant) & (rows["size"] == size) & rows["finished"]]
        rows = rows.sort_values("epoch")
        assert rows["epoch"].tolist() == [1, 2, 3, 5, 8]
        yield ", ".join(f"{value:.3f}" for value in rows["test_loss"])


def shapes():
    for deep, wide in (("8x32", "2x64"), ("8x128", "2x256"), ("8x192", "2x384")):
        yield f"{deep} {loss(deep):.3f}, {wide} {loss(wide):.3f}"


def ablation():
    lines = (REPO / f"results/published/{ML}/points.jsonl").read_text().splitlines()
    switched = {point["run"]: point["switch"] for point in map(json.loads, lines)}
    for size in ("2x64", "8x32"):
        line, flat = (loss(size, dropout=dropout) for dropout in (0.2, 0.15))
        keys = {"epochs": 24, "schedule": "constant"}
        adam, sgd = (loss(size, switch_patience=patience, **keys) for patience in (0, 1))
        yield f"{size}: {line:.3f} with the line, {flat:.3f} with 0.15 in all layers"
        (run,) = table(ML, "points").query(f"size == '{size}' and switch_patience == 1")["run"]
        happened = switched[run]["happened"]
        when = f"after epoch {happened['after_epoch']}" if happened else "which never happened"
        yield f"{size}: {adam:.3f} with Adam alone, {sgd:.3f} with the switch, {when}"
        yield f"{sgd - adam:.2f} {'better at two layers' if size == '2x64' else 'at eight'}"


def long_tail():
    for size in ("2x64", "4x128", "12x256"):
        parts = [f"{g} {change(cell('long_tail', size, 'HR@10', g))}" for g in ("G1", "G2", "G3", "G4")]
        yield f"{size}: {', '.join(parts)}"


def cold_start():
    for group, fraction in (("in training", 1.0), ("held out", 0.5)):
        keys = {"group": group, "data_fraction": fraction}
        parts = [
            f"{x} {change(cell('cold_start', '4x128', 'HR@10', x=x, **keys))}"
            for x in (50, 40, 30, 20, 10, 5)
        ]
        yield f"{group}: {', '.join(parts)}"
        small, large = (cell("cold_start", size, "coverage@10", x=5, **keys) for size in ("1x32", "4x128"))
        yield f"{group}: {small.value:.3f} to {large.value:.3f}"


def domains():
    for size in ("2x64", "4x64"):
        mix, diff = (cell("domains", size, "HR@10", g, AMAZON, epochs=3) for g in ("mix", "diff"))
        yield f"{size} mix {change(mix)} in {mix.cases:,} cases, diff {diff.cases:,} cases"
    mix, diff = (cell("domains", "12x256", "HR@10", group) for group in ("mix", "diff"))
    yield f"mix {change(mix)} in {mix.cases:,} cases, diff {change(diff)} in {diff.cases:,}"


def guesses():
    """What trained models of the Amazon domains are compared with."""
    references = json.loads((REPO / f"results/published/{AMAZON}/references.json").read_text())
    best = table(AMAZON, "points").sort_values("test_loss").iloc[0]
    markov = references["markov"]["test"]
    yield (
        f"the best of five, {best['size']}, has a test loss of {best['test_loss']:.2f} "
        f"and HR@10 {best['HR@10']:.3f}; "
        f"first-order Markov {markov['loss']:.2f} and {markov['HR@10']:.3f}, "
        f"popularity {references['popularity']['test']['loss']:.2f}"
    )


def robustness():
    for group in ("overwritten", "closed up"):
        parts = []
        for size in TRAINED:
            drops = [cell("robustness", size, "HR@10", group, x=0.3, noise=seed).change for seed in (1, 2, 3)]
            parts.append(f"{100 * sum(drops) / 3:+.1f}")
        yield ", ".join(parts)


def trajectory():
    for group in ("greedy", "one shot"):
        for size in ("1x32", "2x64", "4x128", "12x256"):
            first, last = (cell("trajectory", size, "HR", group, x=j) for j in (1, 10))
            yield f"{size} {first.value:.3f} to {last.value:.3f}"


def rest():
    """Figures in the text between the tables."""
    for study, unit, seconds in ((ML, "hours", 3600), (AMAZON, "minutes", 60)):
        rows = table(study, "points")
        spent = rows["seconds"].sum() / seconds
        yield (
            f"{len(rows)} runs, {spent:.1f} core {unit}"
            if unit == "hours"
            else f"{len(rows)} runs, {spent:.0f} core {unit}"
        )
    assert set(table(ML, "points")["D"]) >= {921689}
    yield "MovieLens-1M has 921,689 train targets"
    seeds = [loss("2x64", seed=seed) for seed in (1, 2, 3)]
    yield f"three seeds of 2x64: {min(seeds):.3f} to {max(seeds):.3f}"
    told = table(ML, "tasks").query(
        "task == 'trajectory' and group == 'greedy' and metric == 'distinct' and x == 10"
    )
    yield f"{100 * told['value'].min():.0f} to {100 * told['value'].max():.0f} % are different ones"
    rows = table(AMAZON, "points")
    yield f"the train loss is {rows['train_loss'].min():.2f} to {rows['train_loss'].max():.2f}"
    yield f"valid {rows['valid_loss'].min():.2f} to {rows['valid_loss'].max():.2f}"
    tail = table(AMAZON, "tasks").query("task == 'long_tail' and metric == 'HR@10' and group != 'G1'")
    yield f"HR@10 of G2 to G4 is at most {tail['value'].max():.4f}"
    assert set(table("quick", "points")["epochs"]) == {3}
    alpha = summary(law("quick", "loss_vs_N")).partition(", ")[2].partition(" (90 %")[0]
    yield f"{alpha} after three epochs"
    sizes = [loss(size, epochs=8) for size in LADDER]
    assert sizes == sorted(sizes, reverse=True)  # each better than the one before, says the law's verdict
    low, high = law(ML, "loss_vs_N").intervals["alpha"]
    assert low < 0.121 < high


PARTS = [
    laws, held_out, losses, pools, repetition, shapes, ablation,
    long_tail, cold_start, domains, robustness, trajectory, guesses, rest,
]  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_the_page_says_what_the_tables_say(part):
    page = " ".join((REPO / "docs/replication.md").read_text().split())
    for text in part():
        assert text in page
