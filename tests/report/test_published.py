"""What is committed as measured can be had again from the committed tables."""

import pandas as pd
import pytest

from conftest import REPO
from recscale.files import read_json, read_table
from recscale.laws.fit import fit_law
from recscale.laws.forms import FORMS
from recscale.laws.result import Fit, Status
from recscale.laws.words import summary
from recscale.report.figures import content
from recscale.report.figures import tasks as task_figures
from recscale.report.figures.study import FIGURES
from recscale.report.laws import fit_one
from recscale.study import study

PUBLISHED = REPO / "results/published"


def test_the_laws_of_quick_are_those_of_its_published_points_and_of_the_readme():
    quick = study.load(REPO / "config/studies/quick.yaml")
    points = pd.read_csv(PUBLISHED / "quick/points.csv")
    assert set(points["run"]) == set(quick.runs)
    readme = (REPO / "README.md").read_text()
    for name, law in quick.laws.items():
        again = fit_one(law, quick, points)
        published = Fit.read(PUBLISHED / f"quick/laws/{name}.json")
        assert again.parameters == pytest.approx(published.parameters, rel=1e-3)
        assert summary(again) == summary(published)
        assert summary(published) in readme


@pytest.mark.parametrize("name", ["quick", "quick-lr", "lsrm-ml-1m", "lsrm-domains-small"])
def test_published_points_are_of_the_committed_study(name):
    committed = study.load(REPO / f"config/studies/{name}.yaml")
    points = pd.read_csv(PUBLISHED / name / "points.csv")
    assert set(points["run"]) == set(committed.runs)
    assert points["beats_popularity"].all()


def test_rates_of_quick_are_the_lowest_of_the_sweep():
    sweep = pd.read_csv(PUBLISHED / "quick-lr/points.csv")
    best = sweep.loc[sweep.groupby("size")["valid_loss"].idxmin()].set_index("size")["learning_rate"]
    quick = study.load(REPO / "config/studies/quick.yaml")
    for run in quick.runs.values():
        if run.size in best:
            assert run.course.learning_rate == best[run.size]


def test_every_form_of_one_axis_ends_with_a_status_on_the_points_of_quick():
    """A sigmoid's constants hardly matter at some starts: its slopes underflow there."""
    points = pd.read_csv(PUBLISHED / "quick/points.csv")
    full = points[points["data_fraction"] == 1]
    for form in FORMS.values():
        if form.axes == ("x",):
            found = fit_law(full["N"], full["test_loss"], law=form.name, form=form, hold_out=2)
            assert found.status in (Status.CONVERGED, Status.NOT_DECREASING)


OF_DECODERS = ["n_layers", "d_model", "n_heads", "dropout", "dropout_last", "dropout_embedding"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_needs_no_key_of_a_decoder(name):
    """Of a family with other keys the table of the points has none of these."""
    folder = REPO / "results/published/quick"
    loaded = study.load(REPO / "config/studies/quick.yaml")
    points = read_table(folder / "points.csv").drop(columns=OF_DECODERS)
    curves, references = read_table(folder / "curves.csv"), read_json(folder / "references.json")
    fits = {law: Fit.read(folder / f"laws/{law}.json") for law in loaded.laws}
    _, table = FIGURES[name](content.Results(loaded, points, curves, references, fits))
    assert len(table)


@pytest.mark.parametrize("name", task_figures.FIGURES)
def test_a_figure_of_a_task_needs_no_key_of_a_decoder(name, tmp_path):
    table = read_table(PUBLISHED / "lsrm-ml-1m/tasks.csv")
    table.drop(columns=OF_DECODERS, errors="ignore").to_csv(tmp_path / "tasks.csv", index=False)
    loaded = study.load(REPO / "config/studies/lsrm-ml-1m.yaml")
    if name in loaded.tasks:
        task_figures.draw(name, loaded, tmp_path, tmp_path / "x.png")
        assert len(pd.read_csv(tmp_path / "x.csv"))
