"""The tasks in a real study: real Snakemake, real MovieLens-1M users, first genres of films as domains."""

import json
import os

import pandas as pd
import pytest

from recscale.study.study import TASKS
from test_workflow import listed_and_loaded, make_project, planned, recscale, snakemake, write_study

STUDY = {
    "title": "Two sizes on a sixteenth of the users, for tests",
    "dataset": "ml-1m",
    "run": {"epochs": 1, "learning_rate": 0.02, "batch_size": 8, "data_fraction": 0.0625},
    "sizes": {"1x8": {}, "1x16": {}},
    "grid": [{"sizes": "all"}],
    "tasks": {task: {"where": {"size": "1x16"}} for task in TASKS} | {"long_tail": {}, "domains": {}},
    "figures": [],
}


@pytest.fixture(scope="module")
def project(ml_1m_log, tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("tasks"), STUDY)
    done = snakemake(made)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_every_task_of_every_run_is_made_collected_and_drawn(project):
    results = project / "results/tiny"
    names = {task: len(list((results / "tasks" / task).glob("*.json"))) for task in TASKS}
    assert names == dict.fromkeys(TASKS, 1) | {"long_tail": 2, "domains": 2}
    table = pd.read_parquet(results / "tasks.parquet")
    pd.testing.assert_frame_equal(pd.read_csv(results / "tasks.csv"), table, check_dtype=False)
    assert set(table["task"]) == set(TASKS)
    for task in TASKS:
        for ending in ("png", "pdf", "csv"):
            assert (results / f"figures/{task}.{ending}").stat().st_size > 100
    cases = table[table["metric"] == "HR@10"].groupby(["task", "run"])["cases"].sum()
    assert set(cases["domains"]) == set(cases["long_tail"]) == {6040}
    groups = set(table.loc[table["task"] == "cold_start", "group"])
    assert groups == {"in training", "held out"}
    passes = [json.loads(path.read_text())["passes"] for path in results.glob("tasks/*/1x16-*.json")]
    assert 25 < sum(passes) <= 45


def test_only_what_is_missing_or_follows_is_planned(project):
    assert planned(project) == {}
    (record,) = project.glob("results/tiny/tasks/trajectory/1x16-*.json")
    content, before = record.read_text(), (record.stat().st_atime_ns, record.stat().st_mtime_ns)
    record.unlink()
    assert planned(project) == {"task": 1, "collect_tasks": 1, "plot_task": 5}
    record.write_text(content)
    os.utime(record, ns=before)  # or it would be newer than the table
    write_study(project, STUDY | {"tasks": STUDY["tasks"] | {"trajectory": {}}})
    assert planned(project) == {"task": 1, "collect_tasks": 1, "plot_task": 5}
    write_study(project, STUDY)


def test_an_edit_of_the_figures_redraws_and_computes_nothing(project):
    path = project / "src/recscale/report/figures/tasks.py"
    text = path.read_text()
    path.write_text(text + "\n# an edit\n")
    assert planned(project) == {"plot_task": 5}
    path.write_text(text)


def test_an_edit_of_the_looks_redraws_the_figures_of_tasks_too(project):
    path = project / "src/recscale/report/figures/style.py"
    text = path.read_text()
    path.write_text(text + "\n# an edit\n")
    assert planned(project) == {"card": 1, "plot_task": 5}
    path.write_text(text)


def test_rules_of_tasks_list_the_modules_that_their_commands_load(project):
    for rule, (listed, loaded) in listed_and_loaded(project, ["collect_tasks", "plot_task"]).items():
        assert listed == loaded, rule


def test_published_tasks_give_the_same_figures(project, tmp_path):
    results, published = project / "results/tiny", project / "results/published/tiny"
    recscale(project, "publish", "tiny")
    assert {path.stem for path in (published / "figures").iterdir()} == set(TASKS)
    recscale(project, "plot", "tiny", "--from", "published", "--out", str(tmp_path))
    for task in TASKS:
        assert (tmp_path / f"{task}.csv").read_text() == (results / f"figures/{task}.csv").read_text()


def test_a_task_that_selects_no_run_or_is_none_is_one_line(project):
    for tasks, message in (
        ({"long_tail": {"where": {"seed": 9}}}, "tasks.long_tail.where: selects none of the 2 runs"),
        ({"long_tail": {"where": {"sead": 1}}}, "tasks.long_tail.where: sead is not one of size, dataset"),
        ({"longtail": {}}, "'longtail' is not one of"),
    ):
        write_study(project, STUDY | {"tasks": tasks})
        done = snakemake(project, "--dry-run")
        assert done.returncode == 1
        assert message in done.stdout + done.stderr
    write_study(project, STUDY)
