"""What is committed as measured can be had again from the committed tables."""

import pandas as pd
import pytest

from conftest import REPO
from recscale.laws.fit import fit_law
from recscale.laws.forms import FORMS
from recscale.laws.result import Fit, Status
from recscale.laws.words import summary
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
