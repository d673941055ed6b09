"""`snakemake --profile slurm` on a real SLURM with accounting: the controller asks sacct."""

import json

import pandas as pd
import pytest

from cluster import Project, cluster, long, needs_slurm, same, slurm
from test_workflow import STUDY, planned

pytestmark, pytest_plugins = needs_slurm, ["cluster"]

FEW = STUDY | {
    "run": STUDY["run"] | {"data_fraction": 0.01},
    "sizes": {"1x8": {}, "1x16": {}, "1x24": {}},
    "grid": [{"sizes": "all"}],
    "laws": {},
    "figures": ["loss_vs_n"],
}


@pytest.fixture(scope="module")
def sacct(tmp_path_factory):
    """A cluster with two GPUs whose jobs are in a database."""
    with cluster(tmp_path_factory.mktemp("slurm"), accounting=True, gpus=2):
        yield


@pytest.fixture(scope="module")
def finished(sacct, tmp_path_factory):
    """The tiny study from the archive to the figure, by the profile."""
    project = Project(tmp_path_factory.mktemp("finished"), FEW)
    code, said = project.run()
    assert code == 0, said
    return project


def trainings(project):
    """State, start, end, memory and resources of every job of a training, as sacct has them."""
    rows = slurm("sacct", "-n", "-X", "-P", "--format=State,Start,End,ReqMem,AllocTRES,WorkDir,Comment")
    found = [row.split("|") for row in rows.splitlines()]
    return [row for row in found if row[5] == str(project.folder) and "train" in row[6]]


def test_end_to_end(finished):
    """Everything is made; no more trainings at once than GPUs, and both GPUs are used."""
    points = pd.read_parquet(finished.folder / "results/tiny/points.parquet")
    assert list(points["status"]) == ["finished"] * 3
    assert (finished.folder / "results/tiny/figures/loss_vs_n.png").exists()
    assert planned(finished.folder) == {}
    jobs = trainings(finished)
    assert len(jobs) == 3
    assert all("gres/gpu=1" in job[4] for job in jobs)
    running = [sum(other[1] <= job[1] < other[2] for other in jobs) for job in jobs]
    assert max(running) == 2
    assert "3 runs: 3 done" in finished.status()


def test_doctor_knows_the_account(finished):
    assert finished.doctor()["ok account"] == "your default one of lab, root"  # SLURM makes the other
    profile = finished.profile.read_text()
    finished.edit(**{"default-resources": {"slurm_account": "mathematics"}})
    assert finished.doctor()["!! account"].endswith(" to one of lab, root")
    finished.profile.write_text(profile)


def test_added_grid_points_run_alone(finished):
    points = [run / "metrics.json" for run in (finished.folder / "results/tiny/runs").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in points}
    finished.study(FEW | {"sizes": FEW["sizes"] | {"1x32": {}}})
    code, said = finished.run()
    assert code == 0, said
    assert len(trainings(finished)) == 4
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "4 runs: 4 done" in finished.status()


@pytest.fixture(scope="module")
def limit_and_poison(sacct, data, made, tmp_path_factory):
    """Two studies at once, on one GPU each: their projects, and exit code and output of their controllers."""
    limit = Project(
        tmp_path_factory.mktemp("limit"), long(130, [1]), data, max_minutes=2, slurm_extra="--signal=TERM@45"
    )
    limit.edit(**{"slurm-requeue": False, "slurm-no-requeue": True})
    poison = Project(tmp_path_factory.mktemp("poison"), long(2, [1, 2]), data)
    (poison.runs()[2] / "log.jsonl").mkdir(parents=True)  # no training can write its log
    started = {project: project.start() for project in (limit, poison)}
    made(limit)
    return {project: (controller.wait(900), project.said()) for project, controller in started.items()}


def test_a_run_longer_than_the_limit_of_time(limit_and_poison, made):
    """Several jobs of two minutes, none of them requeued: saved, ended with 75, retried; the same numbers."""
    (project, (code, said)), _ = limit_and_poison.items()
    assert code == 0, said
    (run,) = project.runs().values()
    jobs = trainings(project)
    assert len(jobs) >= 2
    assert [job[0] for job in jobs] == ["FAILED"] * (len(jobs) - 1) + ["COMPLETED"]
    assert len({job[3] for job in jobs}) == 1  # a 75 asks for no more memory
    assert same(run, made(project))
    assert not (run / "failures.json").exists()


def test_a_poison_point(limit_and_poison):
    """It fails twice the same way, is not trained a third time, is listed at the end; the other is made."""
    _, (project, (code, said)) = limit_and_poison.items()
    assert code == 1
    good, bad = project.runs().values()
    assert (good / "metrics.json").exists()
    why = json.loads((bad / "failed.json").read_text())
    assert why["reason"].endswith("log.jsonl: Is a directory")
    assert any("Is a directory" in line for line in why["lines"])
    assert len(json.loads((bad / "failures.json").read_text())["failures"]) == 2
    line = f"recscale: {bad.name}: failed the same way again, job {why['job_id']}: {why['reason']}; its log: "
    assert line in said.split("Exiting because a job execution failed")[1]
    status = project.status()
    assert "2 runs: 1 done, 1 failed" in status
    assert "Is a directory" in status
    assert why["log"] in status
