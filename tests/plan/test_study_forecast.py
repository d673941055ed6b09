"""`recscale forecast STUDY` on the published points of quick: the numbers are those of its parts."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import REPO
from recscale.cli import main as cli
from recscale.errors import InputError
from recscale.laws.forecast import predict
from recscale.laws.metric_map import fit_map
from recscale.laws.result import Fit
from recscale.plan import forecast as study_forecast
from recscale.plan.cost import run_seconds, stated
from recscale.plan.devices import DEVICES, computed
from recscale.report import laws as study_laws
from recscale.study import study
from recscale.study.schema import read_yaml


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A config folder whose results are the published points of quick, with their laws."""
    root = tmp_path_factory.mktemp("forecast")
    shutil.copytree(REPO / "config", root / "config")
    config = yaml.safe_load((root / "config/config.yaml").read_text())
    text = yaml.safe_dump(config | {"results_dir": str(root / "results")})
    (root / "config/config.yaml").write_text(text)
    out, published = root / "results/quick", REPO / "results/published/quick"
    (out / "laws").mkdir(parents=True)
    shutil.copy(published / "references.json", out)
    pd.read_csv(published / "points.csv").to_parquet(out / "points.parquet")
    quick = study.load(root / "config/studies/quick.yaml")
    study_laws.fit(quick, out / "points.parquet", out / "laws", lambda line: None)
    return root


@pytest.fixture
def ask(results, monkeypatch, capsys):
    def ask(*options):
        command = ["recscale", "forecast", "quick", *options, "--config", str(results / "config/config.yaml")]
        monkeypatch.setattr("sys.argv", command)
        try:
            cli.main()
        except SystemExit as stopped:
            assert stopped.code == 2
            return capsys.readouterr().err
        return capsys.readouterr().out

    return ask


def test_a_size_has_its_loss_by_the_law_and_its_metrics_by_the_map(ask, results, tmp_path):
    said = ask("--N", "9437184", "--json", str(tmp_path / "f.json"), "--plot", str(tmp_path / "f.png"))
    fit = Fit.read(results / "results/quick/laws/loss_vs_N.json")
    found = predict(fit, {"x": 9_437_184.0})
    points = pd.read_parquet(results / "results/quick/points.parquet")
    references = json.loads((results / "results/quick/references.json").read_text())
    hits = fit_map("HR@10", points["test_loss"], points["HR@10"], references["popularity"]["test"]["loss"])
    at = json.loads((tmp_path / "f.json").read_text())["at"]
    assert at["loss"] == found.value
    assert at["interval"] == found.interval
    assert at["metrics"]["HR@10"][0] == pytest.approx(float(hits.predict(found.value)))
    mid, low, high = at["metrics"]["HR@10"]
    assert low < mid < high
    assert f"loss {found.value:.4g} [" in said
    assert f"HR@10 {100 * hits.error:.2g} %" in said  # the map's own error
    assert re.search(r"warning: extrapolates: N 9.44e\+06 is 28.4 times above the runs", said)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png", ".pdf", ".csv"}
    csv = pd.read_csv(tmp_path / "f.csv").set_index("series")
    assert csv.loc["forecast", "y"] == found.value
    assert "fitted again on all 8 runs, what had been held out among them" in said


def test_among_the_runs_there_is_no_warning(ask):
    assert "warning" not in ask("--N", "10000")
    assert "loss_vs_D_1x16 at D 5e+05" in ask("--D", "500000")
    assert "loss_vs_N_and_D at N 1e+04, D 5e+05" in ask("--N", "10000", "--D", "500000")


def test_a_budget_of_hours_is_spent_to_the_last_minute(ask, results, tmp_path):
    said = ask(
        "--budget", "0.004GPUh", "--device", "h100", "--json", str(tmp_path / "b.json"),
        "--plot", str(tmp_path / "b.png"),
    )  # fmt: skip
    content = json.loads((tmp_path / "b.json").read_text())
    best = content["best"]["choice"]
    assert best["cost"] == pytest.approx(0.004)
    # The same, by the planner: hours of this rung on all the data, times the share that it sees.
    config = results / "config"
    quick = study.load(config / "studies/quick.yaml")
    base = next(iter(quick.runs.values()))
    layers, width = map(int, best["rung"]["size"].split("x"))
    run = base.but(n_layers=layers, d_model=width, n_heads={64: 2, 96: 3, 128: 4}[width])
    entry = read_yaml(config / "datasets.yaml", "datasets")["ml-1m"]
    counts = replace(stated("ml-1m", results / "results/data/ml-1m", entry), n_items=3700)
    hours = run_seconds(DEVICES["H100"], computed(DEVICES["H100"], 1, 1, {}), run, counts) / 3600
    assert best["cost"] == pytest.approx(hours * best["seen"] / (3 * counts.epoch(run)[2]), rel=1e-6)
    ladder = {one["rung"]["size"]: one["loss"] for one in content["best"]["ladder"]}
    assert best["loss"] == min(ladder.values())
    assert said.splitlines()[1].startswith(f"best: {best['rung']['size']} (N ")
    assert "one step up, " in said
    csv = pd.read_csv(tmp_path / "b.csv")
    assert csv.loc[csv["series"] == "best", "loss"].item() == pytest.approx(best["loss"])
    assert csv.loc[csv["series"] == "rung", "loss"].tolist() == pytest.approx(list(ladder.values()))
    losses = csv.loc[csv["series"] == "budget", "loss"]
    assert (losses.diff().dropna() < 0).all()  # more money is never worse


def test_a_budget_beyond_the_data_leads_with_what_they_allow(ask, tmp_path):
    said = ask("--budget", "0.05GPUh", "--device", "h100", "--json", str(tmp_path / "b.json")).splitlines()
    content = json.loads((tmp_path / "b.json").read_text())
    targets = content["best"]["choice"]["available"]
    assert said[1].startswith("on the data there is, cheapest within noise of the best there: ")
    assert content["best"]["choice"]["cost"] < 0.05
    more = content["more_data"]["choice"]
    assert more["cost"] == pytest.approx(0.05)
    times = more["available"] / targets
    assert any(line.startswith(f"the budget would pay for {times:.3g} times the data") for line in said)


def test_a_budget_a_thousand_times_the_data_has_no_forecast_of_them(ask, tmp_path):
    said = ask("--budget", "30GPUh", "--device", "h100", "--json", str(tmp_path / "b.json"))
    assert re.search(
        r"pay for [\d.e+]+ times the data there is: no forecast: D is [\d,.e+]+ times above", said
    )
    assert "measure a run at D " in said
    assert "more_data" not in json.loads((tmp_path / "b.json").read_text())


def test_a_size_too_far_from_the_runs_has_no_forecast(ask):
    said = ask("--N", "829440000")
    assert "loss_vs_N: no forecast: N is 2,500 times above the runs, 100 times is the most; measure" in said


def test_flops_count_the_output_layer(ask, tmp_path):
    ask("--flops", "1e12", "--json", str(tmp_path / "b.json"))
    best = json.loads((tmp_path / "b.json").read_text())["best"]["choice"]
    n_items = 3700
    share = 6 * n_items * int(best["rung"]["size"].split("x")[1]) * best["seen"] / 1e12
    assert best["cost"] == pytest.approx(1e12)
    assert share > 0.3  # in models this small it is most of the cost, and N * D * 6 would miss it
    assert 6 * best["rung"]["n"] * best["seen"] < 0.7e12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --budget, --flops, or a place"),
        (("--flops", "1e12", "--N", "5"), "give one of --budget, --flops, or a place"),
        (("--U", "1e12"), r"quick: has no law of test_loss by U; it has loss_vs_N \(N\), "),
        (("--N", "5", "--device", "H100"), "--device and --devices go with --budget"),
        (("--N", "5", "--per-target", "2"), "--per-target is for a law's JSON"),
        (("--N", "5", "--law", "nope"), "--law: quick has no law nope; it has loss_vs_N, "),
        (("--D", "5", "--law", "loss_vs_N"), "--law: loss_vs_N is of test_loss and N: give --N"),
        (
            ("--budget", "1e-9GPUh", "--device", "h100"),
            r"budget: 1e-09 GPUh buy 0.6\d* targets, less than a step",
        ),
        (("--budget", "100"), "--budget: 100 is not device hours, as 100GPUh"),
        (("--budget", "1h", "--device", "abacus"), "--device: abacus is not one of here, A100-80GB"),
    ],
)
def test_what_cannot_be_answered_is_one_line(ask, options, message):
    said = ask(*options)
    assert re.search(message, said)
    assert said.count("\n") == 1


def test_a_study_without_the_law_is_told_the_line_to_add():
    bare = study.Study("s", "t", "x", {}, {}, (), ())
    for given, line in (
        ({"N", "D"}, r"loss_vs_N_and_D: \{form: hoffmann, x: \{N: N, D: D\}\}"),
        ({"N"}, r"loss_vs_N: \{x: N, where: \{data_fraction: 1\}\}"),
    ):
        with pytest.raises(InputError, match=f"it has none; add under laws: {line}"):
            study_forecast.read(bare, Path("results/s"), None, given)


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--D", "1e9"), "is of N, not of --D"), (("--flops", "1e20", "--N", "5"), "give no place with it")],
)
def test_a_law_file_takes_only_its_own_axis(results, monkeypatch, capsys, options, message):
    law = results / "results/quick/laws/loss_vs_N.json"
    monkeypatch.setattr("sys.argv", ["recscale", "forecast", str(law), *options])
    with pytest.raises(SystemExit):
        cli.main()
    assert message in capsys.readouterr().err


def test_a_law_file_takes_no_options_of_a_study(results, monkeypatch, capsys):
    law = results / "results/quick/laws/loss_vs_N.json"
    monkeypatch.setattr("sys.argv", ["recscale", "forecast", str(law), "--N", "1e6", "--budget", "1h"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "forecast: --budget is for a study" in capsys.readouterr().err
