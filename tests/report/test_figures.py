"""Figures say what the tables and the laws say, and files hold what the figures show."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recscale.errors import InputError
from recscale.files import write_json
from recscale.laws.metric_map import fit_map
from recscale.laws.result import Status
from recscale.report.figures import marks
from recscale.report.figures.content import Results
from recscale.report.figures.study import FIGURES, METRICS, draw
from recscale.report.laws import fit_one
from recscale.report.points import settings
from recscale.study.run import Run
from recscale.study.study import Law, Study, select, study_rules

SHAPES = [(1, 8), (1, 16), (1, 32), (2, 32), (2, 64), (2, 128)]


def law_of(name, column, where, hold_out):
    return Law(name, "saturating_power", {"x": column}, "test_loss", where, hold_out)


LAWS = {
    "by_N": law_of("by_N", "N", {"data_fraction": 1, "learning_rate": 0.01}, {"x": 1}),
    "by_D": law_of("by_D", "D", {"size": "1x16", "learning_rate": 0.01}, {}),
}
REFERENCES = {
    "popularity": {"test": {"loss": 7.5, "HR@10": 0.04, "NDCG@10": 0.02}},
    "markov": {"test": {"loss": 6.2, "HR@10": 0.13, "NDCG@10": 0.07}},
}


def make(diverged=(), shapes=SHAPES, laws=LAWS, references=REFERENCES):
    """A study close to a law: the sizes, a second seed, four data fractions and three rates."""
    asked = [(shape, {}) for shape in shapes] + [(shapes[0], {"seed": 2})]
    asked += [((1, 16), {"data_fraction": 0.5**k}) for k in (1, 2, 3, 4)]
    asked += [(shapes[0], {"learning_rate": rate}) for rate in (0.003, 0.03)]
    usual = {"dataset": "toy", "learning_rate": 0.01, "epochs": 3}
    runs = [Run.of(n_layers=n, d_model=d, **usual | more) for (n, d), more in asked]
    points, curves = [], []
    for run in runs:
        n, d = run.shape.n, int(900_000 * run.sample.data_fraction)
        loss = 5.3 + (400 / n) ** 0.5 + (1000 / d) ** 0.4 + (run.course.learning_rate != 0.01) / 10
        loss += (run.seed - 1) / 100 + 0.004 * np.cos(7 * len(points))
        gone = run.name() in diverged
        row = {"run": run.name(), "size": run.size, "status": "diverged" if gone else "finished"}
        row |= {"N": n, "D": d, "chosen_epoch": None if gone else 2, **settings(run)}
        row |= {"valid_loss": None if gone else loss - 0.05}
        if not gone:
            row |= {"test_loss": loss, "HR@10": 1 / loss, "NDCG@10": 0.5 / loss}
        points.append(row)
        for epoch in () if gone else (1, 2, 3):
            losses = {"train_loss": loss + 1 / epoch, "valid_loss": loss - 0.05 + abs(epoch - 2)}
            tested = {"finished": epoch == 3, "test_loss": loss if epoch > 1 else np.nan}
            curves.append({"run": run.name(), "size": run.size, "epoch": epoch} | losses | tested)
    study = Study("toy", "Toy", "toy", {run.name(): run for run in runs}, laws, tuple(FIGURES))
    table, fits = pd.DataFrame(points), {}
    absent = [column for column in ("test_loss", *METRICS) if column not in table]
    table[absent] = np.nan
    for name, law in laws.items():
        fits[name] = fit_one(law, study, table)
    return Results(study, table, pd.DataFrame(curves), references, fits)


def write(tables, folder):
    (folder / "laws").mkdir(parents=True)
    # A diverged run has no metrics of test: `collect` leaves columns out that no run has.
    unknown = [name for name in ("test_loss", *METRICS) if tables.points[name].isna().all()]
    tables.points.drop(columns=unknown).to_parquet(folder / "points.parquet")
    tables.curves.to_parquet(folder / "curves.parquet")
    write_json(folder / "references.json", tables.references)
    for name, fit in tables.fits.items():
        write_json(folder / "laws" / f"{name}.json", fit.to_json())


@pytest.fixture(scope="module")
def tables():
    return make()


def drawn(tables, name, folder):
    """The figure's CSV, read back."""
    if not folder.joinpath("laws").exists():
        write(tables, folder)
    draw(name, tables.study, folder, folder / "figures" / f"{name}.png")
    return pd.read_csv(folder / "figures" / f"{name}.csv")


def notes(figure):
    return " ".join(figure.get_supxlabel().split())


def lines(figure):
    """Drawn lines of more than two points: laws' curves."""
    return [line for axis in figure.axes for line in axis.lines if len(line.get_xdata()) > 2]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_a_pdf_and_a_csv_and_the_same_again(name, tables, tmp_path):
    drawn(tables, name, tmp_path)
    made = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in made] == [f"{name}.{end}" for end in ("csv", "pdf", "png")]
    before = [path.read_bytes() for path in made]
    assert before[1].startswith(b"%PDF")
    assert before[2].startswith(b"\x89PNG")
    drawn(tables, name, tmp_path)
    assert [path.read_bytes() for path in made] == before


def test_each_law_has_a_figure_of_its_own(tables, tmp_path):
    csv = drawn(tables, "fit_by_N", tmp_path)
    fit = tables.fits["by_N"]
    assert csv.loc[csv["series"] == "band", "predicted"].tolist() == fit.band["mid"]
    assert (csv["series"] == "held_out").sum() == len(fit.held_out) == 1


def test_exponents_are_those_of_the_fits_one_row_each(tables, tmp_path):
    csv = drawn(tables, "exponents", tmp_path).set_index("law")
    assert list(csv.index) == [name for name, fit in tables.fits.items() if fit.parameters]
    for name, row in csv.iterrows():
        fit = tables.fits[name]
        assert row["exponent"] == fit.parameters["alpha"]
        assert row["status"] == fit.status
        ends = [None if np.isnan(end) else end for end in row[["lo", "hi"]]]
        assert ends == fit.intervals["alpha"]
        assert row["of"] == LAWS[name].columns


def test_without_laws_the_figure_of_exponents_is_empty_and_says_why():
    _, csv = FIGURES["exponents"](make(laws={}))
    assert csv.empty
    figure, csv = FIGURES["exponents"](make(diverged=set(make().study.runs)))
    assert csv.empty
    assert "by_N: refused" in figure.get_supxlabel()


def test_loss_to_metric_is_the_map_and_says_which_runs_are_in_it(tables, tmp_path):
    csv = drawn(tables, "loss_to_metric", tmp_path)
    hits = csv[csv["metric"] == "HR@10"]
    runs, line = hits[hits["series"].isin(["run", "not_used"])], hits[hits["series"] == "map"]
    found = fit_map("HR@10", runs["test_loss"], runs["value"], REFERENCES["popularity"]["test"]["loss"])
    assert (runs["series"] == "run").sum() == found.runs
    assert (runs.loc[runs["series"] == "not_used", "test_loss"] > found.threshold).all()
    assert line["value"].tolist() == pytest.approx(found.predict(line["test_loss"]).tolist())
    assert (line["lo"] < line["value"]).all()
    assert (line["value"] < line["hi"]).all()


def test_an_unknown_figure_is_one_line_with_the_known_ones(tables, tmp_path):
    with pytest.raises(InputError, match=r"no_such is not one of loss_vs_n, .*learning_rates"):
        draw("no_such", tables.study, tmp_path, tmp_path / "no_such.png")
    assert not list(tmp_path.iterdir())


def test_loss_vs_n_holds_the_runs_the_law_and_the_references(tables, tmp_path):
    csv = drawn(tables, "loss_vs_n", tmp_path)
    fit, points = tables.fits["by_N"], tables.points.set_index("run")
    runs = csv[csv["series"].isin(["fitted", "held_out"])].set_index("run")
    assert set(runs.index) == set(select(LAWS["by_N"], tables.study.runs))
    assert (runs["N"] == points.loc[runs.index, "N"]).all()
    assert (runs["test_loss"] == points.loc[runs.index, "test_loss"]).all()
    assert list(runs[runs["series"] == "held_out"]["size"]) == ["2x128"]
    curve = csv[csv["series"] == "line"]
    for column, key in (("N", "x"), ("test_loss", "mid"), ("lo", "lo"), ("hi", "hi")):
        assert curve[column].tolist() == fit.band[key]
    assert curve["N"].max() == points["N"].max()  # reaches the size held out
    (held,) = fit.held_out
    predicted = csv[csv["series"] == "predicted"].iloc[0]
    assert predicted[["N", "test_loss"]].tolist() == [held["x"], held["predicted"]]
    assert predicted[["lo", "hi"]].tolist() == held["interval"]
    irreducible = csv[csv["series"] == "irreducible_loss"].iloc[0]
    assert irreducible["test_loss"] == fit.parameters["E"]
    assert irreducible[["lo", "hi"]].tolist() == fit.intervals["E"]
    references = csv[csv["series"] == "reference"].set_index("name")["test_loss"]
    assert references.to_dict() == {"popularity": 7.5, "markov": 6.2}


def test_loss_vs_d_holds_sizes_with_several_amounts_of_data(tables, tmp_path):
    csv = drawn(tables, "loss_vs_d", tmp_path)
    runs = csv[csv["series"] == "fitted"]
    expected = tables.points[tables.points["size"] == "1x16"]
    assert runs[["run", "D", "test_loss"]].values.tolist() == (
        expected[["run", "D", "test_loss"]].values.tolist()
    )
    curve = csv[csv["series"] == "line"]
    assert curve["test_loss"].tolist() == tables.fits["by_D"].band["mid"]


def test_loss_vs_d_is_of_one_axis_of_the_data(tables):
    half = tables.points[tables.points["data_fraction"] == 0.5]
    others = [half.assign(run=axis, data_axis=axis) for axis in ("time", "history")]
    _, csv = FIGURES["loss_vs_d"](replace(tables, points=pd.concat([tables.points, *others])))
    assert not csv["run"].isin(["time", "history"]).any()
    full = tables.points[tables.points["data_fraction"] == 1]
    no_laws = replace(tables.study, laws={})
    _, csv = FIGURES["loss_vs_d"](replace(tables, study=no_laws, points=pd.concat([full, *others])))
    assert set(csv["run"]) == {"time", "1x16-e3-lr0.01-f1-s1"}


def test_loss_vs_d_leaves_out_runs_of_another_recipe_at_full_data_alone(tables):
    """A study's longer runs and its ablation stand on all the data only: no step along D leads to them."""
    longer = tables.points[tables.points["run"] == "1x16-e3-lr0.01-f1-s1"].assign(run="longer", epochs=30)
    more = replace(tables, points=pd.concat([tables.points, longer]))
    _, csv = FIGURES["loss_vs_d"](more)
    assert "longer" not in set(csv["run"])
    _, csv = FIGURES["loss_vs_d"](replace(more, study=replace(tables.study, laws={})))
    assert set(csv["run"]) == set(tables.points.loc[tables.points["size"] == "1x16", "run"])


def test_learning_curves_hold_the_first_seed_at_its_best_rate(tables, tmp_path):
    csv = drawn(tables, "learning_curves", tmp_path)
    chosen = csv[csv["series"] == "chosen_epoch"].set_index("run")
    assert list(chosen.index) == [f"{n}x{d}-e3-lr0.01-f1-s1" for n, d in SHAPES]
    assert (chosen["epoch"] == 2).all()
    for series in ("valid_loss", "train_loss"):
        part = csv[csv["series"] == series].set_index(["run", "epoch"])["loss"]
        curves = tables.curves.set_index(["run", "epoch"])[series]
        assert len(part) == 3 * len(SHAPES)
        assert (part == curves.loc[part.index]).all()


def test_metrics_vs_n_holds_both_metrics_and_their_references(tables, tmp_path):
    csv = drawn(tables, "metrics_vs_n", tmp_path)
    for metric in ("HR@10", "NDCG@10"):
        part = csv[csv["metric"] == metric]
        runs = part[part["series"] == "run"].set_index("run")["value"]
        assert len(runs) == len(SHAPES) + 1
        assert (runs == tables.points.set_index("run").loc[runs.index, metric]).all()
        references = part[part["series"] == "reference"].set_index("name")["value"]
        assert references.to_dict() == {k: v["test"][metric] for k, v in REFERENCES.items()}


def test_metrics_vs_n_tells_runs_of_one_epoch_from_longer_ones(tables):
    figure, _ = FIGURES["metrics_vs_n"](tables)
    assert not [
        text for legend in figure.legends for text in legend.get_texts() if "epoch" in text.get_text()
    ]
    points = tables.points.assign(epochs=tables.points["epochs"].where(tables.points["size"] != "1x8", 1))
    figure, _ = FIGURES["metrics_vs_n"](replace(tables, points=points))
    assert {"1 epoch", "3 epochs"} <= {text.get_text() for text in figure.legends[0].get_texts()}
    faces: dict[bool, set[str]] = {True: set(), False: set()}
    for line in figure.axes[0].lines:
        if line.get_marker() in marks.SEEDS:
            faces[line.get_xdata()[0] == 12 * 8**2].add(line.get_markerfacecolor())
    assert len(faces[True]) == len(faces[False]) == 1
    assert faces[True] != faces[False]


def test_learning_rates_mark_the_lowest_mean_of_the_seeds(tables, tmp_path):
    csv = drawn(tables, "learning_rates", tmp_path)
    lowest = csv[csv["series"].str.startswith("lowest")]
    assert lowest[["series", "size", "learning_rate"]].values.tolist() == [["lowest", "1x8", 0.01]]
    points = tables.points
    seeds = points[(points["size"] == "1x8") & (points["learning_rate"] == 0.01)]
    assert lowest["valid_loss"].item() == pytest.approx(seeds["valid_loss"].mean(), abs=1e-12)


def test_a_lowest_rate_at_the_end_of_the_rates_is_told_apart():
    high = {f"1x8-e3-lr0.03-f1-s{seed}" for seed in (1, 2)}
    tables = make()
    kept = tables.points[~tables.points["run"].isin(high)]
    _, csv = FIGURES["learning_rates"](replace(tables, points=kept))
    assert "lowest_at_edge" in set(csv["series"])
    # a diverged rate was tried: the lowest is then not at the end
    _, csv = FIGURES["learning_rates"](make(diverged=high))
    assert "lowest" in set(csv["series"])


@pytest.mark.parametrize("name", ["loss_vs_n", "metrics_vs_n", "learning_curves", "learning_rates"])
def test_diverged_runs_are_counted_and_named_and_not_drawn(name):
    gone = "2x64-e3-lr0.01-f1-s1"
    figure, csv = FIGURES[name](make(diverged={gone}))
    assert f"Diverged, not drawn: 1 run ({gone})" in notes(figure)
    assert set(csv[csv["run"] == gone]["series"]) == {"diverged"}


OF_RUNS = [name for name in FIGURES if name != "exponents"]


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_study_whose_every_run_diverged_still_draws(name, tmp_path):
    tables = make(diverged=set(make().study.runs))
    assert drawn(tables, name, tmp_path)["series"].isin(["diverged", "reference"]).all()


@pytest.mark.parametrize("name", OF_RUNS)
def test_one_size_and_no_law(name):
    _, csv = FIGURES[name](make(shapes=[(1, 16)], laws={}))
    assert not csv["series"].isin(["line", "predicted", "fitted", "held_out"]).any()
    assert set(csv["size"].dropna()) == {"1x16"}


@pytest.mark.parametrize("status", Status)
def test_only_a_status_that_allows_a_line_has_one(status, tables):
    fit = replace(tables.fits["by_N"], status=status)
    figure, csv = FIGURES["loss_vs_n"](replace(tables, fits=tables.fits | {"by_N": fit}))
    series = set(csv["series"])
    trusted = set(marks.LINE)
    assert {Status.REFUSED, Status.FLAT, Status.NOT_DECREASING, Status.NOT_CONVERGED} == set(Status) - trusted
    assert ({"line", "predicted", "held_out"} <= series) == (status in trusted)
    assert bool(lines(figure)) == (status in trusted)
    assert ("irreducible_loss" in series) == (status is Status.CONVERGED)
    solid = [line.get_linestyle() == "-" for line in lines(figure)]
    assert any(solid) == (status is Status.CONVERGED)
    assert status in notes(figure)


def test_an_open_interval_leaves_the_panel_and_the_irreducible_loss_out(tables):
    fit = tables.fits["by_N"]
    band = fit.band | {"lo": [None] * len(fit.band["x"])}
    open_ended = replace(fit, band=band, intervals=fit.intervals | {"E": [None, 5.4]})
    figure, csv = FIGURES["loss_vs_n"](replace(tables, fits=tables.fits | {"by_N": open_ended}))
    assert "irreducible_loss" not in set(csv["series"])
    assert csv.loc[csv["series"] == "line", "lo"].isna().all()
    bottom = figure.axes[-1].collections[0].get_paths()[0].get_extents().y0
    assert bottom < figure.axes[-1].get_ylim()[0]


@pytest.mark.parametrize(("markov", "panels"), [(6.2, 2), (7.0, 2), (4.0, 3)], ids=["near", "above", "below"])
def test_every_line_is_inside_some_panel_and_the_runs_keep_theirs(markov, panels, tables):
    references = REFERENCES | {"markov": {"test": {"loss": markov}}}
    figure, csv = FIGURES["loss_vs_n"](replace(tables, references=references))
    limits = [axis.get_ylim() for axis in figure.axes]
    assert len(limits) == panels
    (runs,) = [limit for limit, axis in zip(limits, figure.axes, strict=True) if axis.get_ylabel()]
    for row in csv.dropna(subset=["test_loss"]).itertuples():
        inside = [low < row.test_loss < high for low, high in limits]
        assert sum(inside) == 1
        if row.series not in ("reference", "irreducible_loss"):
            assert runs[0] < row.test_loss < runs[1]
    assert runs[1] - runs[0] < 2.5 * np.ptp(tables.points["test_loss"])


def test_runs_that_differ_in_rate_only_are_one_run_outside_the_learning_rates(tables):
    for name in ("metrics_vs_n", "loss_vs_d", "learning_curves"):
        _, csv = FIGURES[name](tables)
        assert not csv["run"].dropna().str.contains("lr0.003|lr0.03").any()


def test_the_schema_offers_exactly_these_figures():
    rules = study_rules()
    assert sorted(rules["properties"]["figures"]["items"]["enum"]) == sorted(FIGURES)
