"""A trained run, its tasks, their files and their table, on a small log."""

import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from recscale.errors import InputError
from recscale.next_item.tasks import point, table
from recscale.next_item.tasks.cases import CELL, Outcome
from recscale.report.figures import tasks as figures
from recscale.study import study
from recscale.study.problems import NEXT_ITEM
from recscale.study.run import Run
from recscale.study.study import Study, Task, study_rules
from recscale.train import machine
from runs import run_of, train
from trained import long_users

SIZES = {8: 0.5, 16: 1.0}  # width: also on that share of the users


def test_the_five_tasks_are_the_same_everywhere():
    rules = study_rules()
    for names in (figures.FIGURES, rules["properties"]["tasks"]["propertyNames"]["enum"]):
        assert sorted(names) == sorted(study.TASKS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two sizes on all users and on half of them, each trained for an epoch, all tasks done: the folder."""
    folder = tmp_path_factory.mktemp("tasks")
    data = long_users(folder)
    items = pl.read_parquet(data / "items.parquet")
    halves = (pl.col("id") % 7 == 0).replace_strict({True: "rare", False: "frequent"})
    items.with_columns(domain=halves).write_parquet(data / "items.parquet")
    for run in content().runs.values():
        train(run, data, folder / "runs" / run.name(), 1, print)
        for task in study.TASKS:
            point.write(task, folder / "runs" / run.name(), data, place(folder, task, run), 1)
    return folder


def content(**more):
    """The study of `made`."""
    shape = {"dataset": "x", "n_layers": 1, "learning_rate": 0.01, "batch_size": 4} | more
    runs = [Run.of(d_model=d, data_fraction=f, **shape) for d in (8, 16) for f in (1.0, 0.5)]
    tasks = {name: Task(name, {}) for name in study.TASKS}
    return Study("s", "t", "x", {run.name(): run for run in runs}, {}, (), tasks)


def place(folder, task, run):
    return folder / "tasks" / task / f"{run.name()}.json"


@pytest.fixture(scope="module")
def rows(made):
    return table.collect(content(), made / "tasks")


def test_a_record_says_what_was_done_and_its_means_are_those_of_its_cases(made):
    for task in study.TASKS:
        for run in content().runs.values():
            record = json.loads(place(made, task, run).read_text())
            assert record["spec"] == json.loads(run.spec())
            cases = pd.read_parquet(place(made, task, run).with_suffix(".parquet"))
            assert sum(cell["cases"] for cell in record["cells"]) == len(cases)
            assert not cases.duplicated(["user", *CELL]).any()
            for cell in record["cells"]:
                part = cases[(cases["group"] == cell["group"]) & (cases["noise"] == cell["noise"])]
                part = part[part["x"].isna() if cell["x"] is None else part["x"] == cell["x"]]
                for name in set(cell) & set(part.columns) - set(CELL):
                    assert cell[name] == pytest.approx(part[name].mean(), abs=1e-6)


def test_all_tasks_of_a_point_take_at_most_45_passes(made):
    for run in content().runs.values():
        records = [json.loads(place(made, task, run).read_text()) for task in study.TASKS]
        assert 20 < sum(record["passes"] for record in records) <= 45
        for record in records:  # what recscale plan counts with: all users, though some histories are short
            passes, most = record["passes"], NEXT_ITEM.tasks[record["task"]]
            assert passes == most or (
                record["task"] in ("cold_start", "trajectory") and 0.2 * most < passes < most
            )


def test_clean_cases_in_float32_have_the_test_metrics_of_the_run(made):
    """Long tail, domains and robustness ask every user once for the test item, as the run's own test did."""
    how = machine.choose({"precision": "float32"}, 1)
    for run in content().runs.values():
        metrics = json.loads((made / "runs" / run.name() / "metrics.json").read_text())
        for task in ("long_tail", "domains", "robustness"):
            trained = point.trained_of(made / "runs" / run.name(), metrics, made, how)
            cases = point.task_of(task)(trained).cases
            clean = cases[cases["noise"] == 0]
            for metric in ("HR@10", "NDCG@10"):
                assert clean[metric].mean() == pytest.approx(metrics["test"][metric], abs=1e-6)


def test_bfloat16_in_the_blocks_moves_hardly_a_case(made):
    """Of 60 users at most two change sides; emulated where the machine has none."""
    run = next(iter(content().runs.values()))
    metrics = json.loads((made / "runs" / run.name() / "metrics.json").read_text())
    hits = []
    for precision in ("float32", "bfloat16"):
        how = machine.choose({"precision": precision}, 1)
        trained = point.trained_of(made / "runs" / run.name(), metrics, made, how)
        hits.append(point.task_of("long_tail")(trained).cases["HR@10"])
    assert (hits[0] != hits[1]).sum() <= 2


def test_the_table_has_every_value_with_its_interval(made, rows):
    plain = rows[rows["metric"] != "coverage@10"]
    assert ((plain["lo"] <= plain["value"]) & (plain["value"] <= plain["hi"])).all()
    assert rows[rows["metric"] == "coverage@10"][["lo", "hi", "change"]].isna().all(axis=None)
    assert set(rows["task"]) == set(study.TASKS)
    assert not rows.duplicated(["task", "run", *CELL, "metric"]).any()


def test_a_gain_is_over_the_smallest_size_on_the_same_data(rows):
    part = rows[(rows["task"] == "long_tail") & (rows["metric"] == "HR@10")].set_index(["run", "group"])
    for run in content().runs.values():
        small = Run.of(**json.loads(run.spec()) | {"d_model": 8}).name()
        for group in ("G1", "G2", "G3", "G4"):
            row = part.loc[run.name(), group]
            if run.shape.d_model == 8:
                assert pd.isna(row["against"])
                assert pd.isna(row["change"])
            else:
                assert row["against"] == small
                of = part.loc[small, group]["value"]
                assert (of == 0 and pd.isna(row["change"])) or row["change"] == pytest.approx(
                    row["value"] / of - 1
                )


def test_a_drop_is_against_the_same_run_undisturbed(rows):
    part = rows[(rows["task"] == "robustness") & (rows["metric"] == "HR@10")]
    for run, of_run in part.groupby("run"):
        clean = of_run[of_run["group"] == "clean"]
        assert clean["change"].isna().all()
        others = of_run[of_run["group"] != "clean"]
        assert (others["against"] == run).all()
        assert others["change"].tolist() == pytest.approx(
            (others["value"] / clean["value"].item() - 1).tolist()
        )


def test_held_out_users_are_of_runs_on_a_share_of_them(rows):
    part = rows[(rows["task"] == "cold_start") & (rows["group"] == "held out")]
    assert set(part["data_fraction"]) == {0.5}
    both = rows[(rows["task"] == "cold_start") & (rows["data_fraction"] == 0.5) & (rows["metric"] == "HR@10")]
    assert both.groupby(["run", "x"])["cases"].sum().nunique() == 1


def test_a_run_is_compared_with_the_one_most_like_it():
    def names(*runs):
        return {run.name(): run for run in runs}

    small = run_of("x", 1, 8, 0.1)
    seeds = run_of("x", 1, 8, 0.1, seed=2), run_of("x", 1, 16, 0.1, seed=2)
    others = run_of("x", 1, 8, 0.1, data_fraction=0.5), run_of("x", 1, 8, 0.1, epochs=9)
    runs = names(
        *others, small, *seeds, run_of("x", 1, 16, 0.02, epochs=3), run_of("x", 1, 16, 0.1, data_fraction=0.1)
    )
    assert table.smallest(seeds[1].name(), runs) == seeds[0].name()
    assert table.smallest(run_of("x", 1, 16, 0.02, epochs=3).name(), runs) == others[1].name()
    assert table.smallest(run_of("x", 1, 16, 0.1, data_fraction=0.1).name(), runs) is None
    assert table.smallest(small.name(), runs) == small.name()


def test_runs_without_the_same_cases_are_not_compared(tmp_path):
    """A shorter input is more often without the domain: user 1 is mix in one run, diff in the other."""
    runs = {
        run.name(): run for run in (run_of("x", 1, 8, 0.1, max_len=50), run_of("x", 1, 16, 0.1, max_len=60))
    }
    only = Study("s", "t", "x", runs, {}, (), {"domains": Task("domains", {})})
    for (name, run), groups in zip(runs.items(), (("mix", "diff"), ("mix", "mix")), strict=True):
        cases = pd.DataFrame(
            {"user": [0, 1], "group": groups, "x": math.nan, "noise": 0, "HR@10": [1.0, 0.0]}
        )
        record = {
            "task": "domains",
            "recipe": study.TASK_RECIPE,
            "status": "finished",
            "spec": json.loads(run.spec()),
        }
        record |= {"data_sha256": "00", "passes": 1, "seconds": 1, "cells": point.cells(Outcome(cases))}
        (tmp_path / "domains").mkdir(exist_ok=True)
        (tmp_path / f"domains/{name}.json").write_text(json.dumps(record))
        cases.to_parquet(tmp_path / f"domains/{name}.parquet")
    rows = table.collect(only, tmp_path)
    assert rows[["size", "group", "value"]].to_numpy().tolist() == [
        ["1x8", "mix", 1], ["1x8", "diff", 0], ["1x16", "mix", 0.5],
    ]  # fmt: skip
    assert rows[["against", "change"]].isna().all(axis=None)


# --- intervals ---


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_interval_of_a_share_is_wilsons(n, hits):
    hits = min(hits, n)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(table.LEVEL, method="wilson")
    found = table.interval(np.repeat([1.0, 0.0], [hits, n - hits]))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Gains of NDCG: many zeros, some values between. 2,000 draws of 200 cases."""
    rng, gains = np.random.default_rng(0), np.array([0, 0, 0, 0, 0.3, 0.5, 1.0])
    inside = [
        low <= gains.mean() <= high
        for low, high in (table.interval(rng.choice(gains, 200)) for _ in range(2000))
    ]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_changes_hold_the_truth_as_often_as_they_say():
    """Paired cases that often agree: a hit of the base stays one in 70 %, and others become one in 20 %."""
    rng, inside, widths = np.random.default_rng(0), [], []
    for _ in range(2000):
        base = (rng.random(500) < 0.2).astype(float)
        values = np.where(base > 0, rng.random(500) < 0.7, rng.random(500) < 0.2).astype(float)
        ratio, low, high = table.change(values, base)
        inside.append(low <= 0.3 / 0.2 - 1 <= high)
        widths.append(high - low)
        assert ratio == pytest.approx(values.mean() / base.mean() - 1)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_changes_at_the_ends():
    ones, zeros = np.ones(10), np.zeros(10)
    assert table.change(ones, ones) == pytest.approx((0, 0, 0))
    assert all(math.isnan(end) for end in table.change(ones, zeros))
    lost, low, high = table.change(zeros, ones)
    assert (lost, low) == (-1, -1)
    assert high == pytest.approx(scipy.stats.binomtest(0, 10).proportion_ci(0.9, method="wilson").high - 1)


# --- what goes wrong ---


def copy(made, tmp_path, run):
    """The folder of a run, to spoil."""
    folder = tmp_path / run.name()
    folder.mkdir()
    for name in ("metrics.json", "model.safetensors"):
        folder.joinpath(name).write_bytes((made / "runs" / run.name() / name).read_bytes())
    return folder


def spoiled(folder, **changes):
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def damaged_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def of_other_data(folder):
    spoiled(folder, data_sha256="00")


def of_another_spec(folder):
    path = folder / "metrics.json"
    spec = json.loads(path.read_text())["spec"]
    spoiled(folder, spec=spec | {"seed": 3})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            without_weights,
            "model.safetensors: there is no such file; remove .*metrics.json to train it again",
        ),
        (damaged_weights, "model.safetensors: it is damaged"),
        (of_another_spec, "model.safetensors: it is of another spec"),
        (of_other_data, "is not what .*metrics.json was trained on"),
    ],
)
def test_what_does_not_belong_together_is_one_line_and_writes_nothing(made, tmp_path, spoil, message):
    folder = copy(made, tmp_path, next(iter(content().runs.values())))
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        point.write("long_tail", folder, made, tmp_path / "out/x.json", 1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverged_has_no_cells_and_no_rows(made, tmp_path):
    run = next(iter(content().runs.values()))
    folder = copy(made, tmp_path, run)
    spoiled(folder, status="diverged", test=None)
    without_weights(folder)
    found = point.write("trajectory", folder, made, tmp_path / "tasks/trajectory" / f"{run.name()}.json", 1)
    assert (found["cells"], found["passes"]) == ([], 0)
    one = Study("s", "t", "x", {run.name(): run}, {}, (), {"trajectory": Task("trajectory", {})})
    assert table.collect(one, tmp_path / "tasks").empty


def test_a_record_of_another_spec_or_missing_is_one_line(made):
    with pytest.raises(InputError, match=r"there is no such file"):
        table.collect(content(seed=2), made / "tasks")
    run = next(iter(content().runs.values()))
    with pytest.raises(InputError, match=r"another spec or recipe; remove it to have it made again"):
        table.read(place(made, "long_tail", run), Run.of(**json.loads(run.spec()) | {"seed": 2}))


def test_cells_keep_their_order_and_coverage():
    cases = pd.DataFrame({"user": [0, 1, 0], "group": ["b", "a", "b"], "x": [2.0, 1.0, 3.0], "noise": 0})
    cases["HR@10"] = [1.0, 0.0, 0.5]
    coverage = cases[CELL].assign(**{"coverage@10": [0.1, 0.2, 0.3]})
    found = point.cells(Outcome(cases, coverage))
    assert [(cell["group"], cell["x"], cell["coverage@10"]) for cell in found] == [
        ("b", 2, 0.1), ("a", 1, 0.2), ("b", 3, 0.3),
    ]  # fmt: skip


# --- figures ---


@pytest.mark.parametrize("name", study.TASKS)
def test_every_figure_is_drawn_and_its_csv_has_the_numbers_of_the_table(name, rows, tmp_path):
    rows.to_parquet(tmp_path / "tasks.parquet")
    out = tmp_path / "figures" / f"{name}.png"
    figures.draw(name, content(), tmp_path, out)
    assert sorted(path.suffix for path in out.parent.iterdir()) == [".csv", ".pdf", ".png"]
    drawn = pd.read_csv(out.with_suffix(".csv"))
    assert drawn["size"].nunique() == 2
    before = out.read_bytes(), out.with_suffix(".pdf").read_bytes()
    figures.draw(name, content(), tmp_path, out)
    assert before == (out.read_bytes(), out.with_suffix(".pdf").read_bytes())
    mine = rows[(rows["task"] == name) & (rows["data_fraction"] == 1)]
    if name == "robustness":  # drops, mean over the seeds of the noise
        some = mine[(mine["metric"] == "HR@10") & (mine["group"] == "overwritten") & (mine["x"] == 0.3)]
        assert len(some) == 6
        found = drawn[(drawn["panel"] == "overwritten") & (drawn["x"] == 0.3)]
        assert found.set_index("size")["y"].to_dict() == pytest.approx(
            (-some.groupby("size")["change"].mean()).to_dict()
        )
        assert (found["lo"] <= found["y"]).all()
        assert (found["y"] <= found["hi"]).all()
    else:
        metric = "HR" if name == "trajectory" else "HR@10"
        some = mine[mine["metric"] == metric]
        found = drawn[drawn["panel"] == metric]
        found = found[found["group"] != "held out"]
        assert sorted(found["y"]) == pytest.approx(sorted(some["value"]))
        assert sorted(found["lo"]) == pytest.approx(sorted(some["lo"]))


def test_no_line_joins_sizes_over_the_domains(rows):
    """Shapes such as 2x1200 are no step of the ladder: a line over N would fall to them and rise again."""
    figure, drawn = figures.domains(rows[rows["task"] == "domains"].assign(dataset="x"))
    marked = [line for axis in figure.axes for line in axis.lines if line.get_marker() == "."]
    assert len(marked) == len(drawn.groupby(["panel", "size", "group"]))
    assert {line.get_linestyle() for line in marked} == {"None"}


@pytest.mark.parametrize("name", study.TASKS)
def test_a_figure_of_one_size_is_drawn_without_gains(name, rows):
    alone = rows[(rows["task"] == name) & (rows["d_model"] == 8)].assign(dataset="x")
    _, drawn = figures.FIGURES[name](alone)
    assert set(drawn["size"]) == {"1x8"}
    assert "gain" not in set(drawn["panel"])


def test_coverage_of_groups_of_different_size_comes_with_a_warning(rows):
    part = rows[rows["task"] == "cold_start"].assign(dataset="x")
    for shown, warned in ((part, True), (part[part["group"] == "in training"], False)):
        figure, _ = figures.cold_start(shown)
        assert ("compare sizes" in " ".join(figure.get_supxlabel().split())) == warned


def test_a_task_that_the_study_has_not_is_one_line(tmp_path):
    only = Study("s", "t", "x", content().runs, {}, (), {"domains": Task("domains", {})})
    with pytest.raises(InputError, match="has no task robustness; it has domains"):
        figures.draw("robustness", only, tmp_path, tmp_path / "robustness.png")
