"""What clusters do to runs, and what comes of it, on a real SLURM without accounting (squeue is asked)."""

import itertools
import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cluster import Project, at_once, cluster, epoch, long, needs_slurm, same, slurm, wait_for

pytestmark, pytest_plugins = needs_slurm, ["cluster"]


@pytest.fixture(scope="module")
def squeue(tmp_path_factory):
    """A cluster with four GPUs and no database."""
    with cluster(tmp_path_factory.mktemp("slurm"), accounting=False, gpus=4):
        yield


def without(folder, study, data, **train):
    return Project(folder, study, data, accounting=False, **train)


def test_cancelled_requeued_killed_each_goes_on(squeue, data, made, tmp_path):
    """Four runs at once: scancel, scontrol requeue, kill -9 of the training, and one left alone."""
    project = without(tmp_path / "project", long(40, [1, 2, 3, 4]), data)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: made(project, seed), project.specs()))
    controller = project.start()
    cancelled, requeued, killed, _ = runs = list(project.runs().values())
    first = [wait_for(lambda run=run: epoch(run) > 1 and project.job(run)[0]) for run in runs]
    status = project.status()
    assert "4 runs: 4 running" in status
    assert "minutes left" in status
    slurm("scancel", str(first[0]))
    slurm("scontrol", "requeue", str(first[1]))
    os.kill(json.loads((killed / "running.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: project.job(requeued) == (first[1], "PENDING"))
    wait_for(lambda: at_once(first[1]))
    assert controller.wait(900) == 0, project.said()
    assert project.job(requeued)[0] == first[1]  # no retry
    assert project.job(cancelled)[0] > max(first)
    assert project.job(killed)[0] > max(first)
    for seed, run in project.runs().items():
        assert same(run, made(project, seed))


def node_is_back():
    """Whether the node takes jobs; SLURM refuses to resume one that does."""
    if slurm("sinfo", "-h", "-n", "node1", "-o", "%T").strip().startswith("down"):
        subprocess.run(["scontrol", "update", "nodename=node1", "state=resume"], check=False)
        return False
    return True


def ended(pid):
    """Whether a process is gone, or a zombie: in a container nobody may fetch its exit status."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_preempted_and_then_its_node_is_lost(squeue, data, made, tmp_path):
    """A job with priority takes all GPUs; later the node goes down. The job's id stays, no retry is used."""
    project = without(tmp_path / "project", long(40, [1]), data, slurm_partition="preemptible")
    made(project)
    controller = project.start()
    (run,) = project.runs().values()
    job = wait_for(lambda: epoch(run) > 1 and project.job(run)[0])
    ask = ["sbatch", "--parsable", "-p", "gpu", "--gpus=4", "--wrap=sleep 5", "-o", "/dev/null"]
    urgent = slurm(*ask).strip()
    wait_for(lambda: project.job(run) == (job, "PENDING"))
    assert (run / "last.safetensors").exists()
    assert "stopped by SIGTERM" in project.jobs_said(run)
    wait_for(lambda: "COMPLETED" in slurm("squeue", "-h", "-t", "all", "-j", urgent, "-o", "%T"))
    wait_for(lambda: at_once(job))
    wait_for(lambda: project.job(run)[1] == "RUNNING" and "continues after" in project.jobs_said(run))
    training = json.loads((run / "running.json").read_text())["pid"]
    slurm("scontrol", "update", "nodename=node1", "state=down", "reason=lost")
    wait_for(lambda: project.job(run) == (job, "PENDING"))
    # The node is alive in truth, and must end it first; then it comes back by itself, or is told to.
    wait_for(lambda: ended(training))
    time.sleep(10)
    wait_for(node_is_back)
    wait_for(lambda: at_once(job))
    assert controller.wait(900) == 0, project.said()
    assert project.job(run)[0] == job
    assert same(run, made(project))


@pytest.fixture(scope="module")
def three_studies(squeue, data, tmp_path_factory):
    """At once: a run over its memory, one over its time that requeues itself, one on two GPUs."""
    memory = without(tmp_path_factory.mktemp("memory"), long(10, [1]), data)
    path = memory.folder / "src/recscale/cluster/request.py"
    text = path.read_text()
    for told, less in (
        ("HEADROOM_MEMORY = 1.25", "HEADROOM_MEMORY = 0.25"),
        ("SNAKEMAKE_MB = 512", "SNAKEMAKE_MB = 150"),
        ("LEAST_MB = 600", "LEAST_MB = 1"),
    ):
        assert told in text
        text = text.replace(told, less)
    path.write_text(text)
    memory.environment["PYTHONPATH"] = str(memory.folder / "src")
    limits = {"max_minutes": 2, "slurm_extra": "--signal=TERM@45"}
    limit = without(tmp_path_factory.mktemp("limit"), long(130, [1]), data, **limits)
    two = without(tmp_path_factory.mktemp("two"), long(40, [2]), data, max_gpus=2, max_minutes=10)
    projects = {"memory": memory, "limit": limit, "two": two}
    started = {name: project.start() for name, project in projects.items()}
    (run,) = limit.runs().values()
    while any(controller.poll() is None for controller in started.values()):
        if limit.job(run)[1] == "PENDING":
            at_once(limit.job(run)[0])
        time.sleep(2)
    return {name: (project, started[name].returncode, project.said()) for name, project in projects.items()}


def test_over_memory(three_studies):
    """A run that needs more than was planned is killed by SLURM, and gets the double."""
    project, code, said = three_studies["memory"]
    assert code == 0, said
    rows = slurm("squeue", "-h", "-t", "all", "-S", "i", "-o", "%T|%m|%Z|%k").splitlines()
    jobs = [row.split("|") for row in rows if f"|{project.folder}|rule_train" in row]
    assert [state for state, *_ in jobs] == ["FAILED"] * (len(jobs) - 1) + ["COMPLETED"]
    memory = [int(asked.rstrip("M")) for _, asked, *_ in jobs]
    assert len(memory) >= 2
    assert all(later == 2 * before for before, later in itertools.pairwise(memory))


def test_a_requeue_at_the_limit_of_time_uses_no_retry(three_studies, made):
    project, code, said = three_studies["limit"]
    assert code == 0, said
    (run,) = project.runs().values()
    jobs = re.findall(r"submitted with SLURM jobid (\d+) \(log: (\S*/rule_train/\S*)\)", said)
    (first, _), *others = jobs  # a log begins anew with each start
    assert "Restarts=0" not in slurm("scontrol", "show", "job", first)
    # The signal may come in the very second in which the run ends: then a retry finds its point.
    assert all("is trained already" in Path(log).read_text() for _, log in others)
    assert same(run, made(project))


def test_a_run_on_two_gpus_is_two_processes(three_studies, made):
    """One GPU could not finish it in time; the numbers are those of one process up to rounding."""
    project, code, said = three_studies["two"]
    assert code == 0, said
    (run,) = project.runs().values()
    point, alone = (json.loads((path / "metrics.json").read_text()) for path in (run, made(project, 2)))
    assert point["execution"]["processes"] == 2
    losses = [[row["train_loss"] for row in content["epochs"][:3]] for content in (point, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # dropout draws other masks


def test_a_killed_controller_and_the_next_one(squeue, data, tmp_path):
    """SIGKILL to Snakemake: its jobs go on. The next one's twins wait for them, or find their points."""
    project = without(tmp_path / "project", long(30, [1, 2, 3, 4, 5]), data)
    controller = project.start()
    runs = list(project.runs().values())
    wait_for(lambda: sum(epoch(run) > 1 for run in runs) == 4)  # the fifth waits for a GPU
    assert "5 runs: 4 running, 1 pending" in project.status()
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    code, said = project.run()
    assert code == 1
    assert "--unlock" in said
    assert project.run("--unlock")[0] == 0
    first = {run.name: project.job(run)[0] for run in runs}
    code, said = project.run()
    assert code == 0, said
    for run in runs:
        point = json.loads((run / "metrics.json").read_text())
        assert point["job_id"] == str(first[run.name])  # made by the job of the dead controller
        assert not (run / "failures.json").exists()
    assert any(project.job(run)[0] > first[run.name] for run in runs)  # there were twins


def test_ctrl_c_cancels_and_the_next_start_goes_on(squeue, data, tmp_path):
    project = without(tmp_path / "project", long(40, [1]), data)
    controller = project.start()
    (run,) = project.runs().values()
    job = wait_for(lambda: epoch(run) > 1 and project.job(run)[0])
    os.killpg(controller.pid, signal.SIGINT)
    controller.wait(60)
    wait_for(lambda: project.job(run)[1] == "CANCELLED", 60)
    time.sleep(8)
    assert project.job(run) == (job, "CANCELLED")  # it does not requeue itself
    assert (run / "last.safetensors").exists()
    code, said = project.run()
    assert code == 0, said
    assert "continues after" in project.jobs_said(run)


def test_doctor_finds_all_but_a_gpu_that_torch_can_use(squeue, data, tmp_path):
    """The pretended GPUs are given to the job, and torch says that they are none."""
    project = without(tmp_path / "project", long(2, [1]), data)

    said = project.doctor()
    assert said["ok GPUs"] == "a job with --gpus=1 would be accepted"
    assert said["ok partition"].startswith("gpu, of cpu, gpu, preemptible")
    assert said["ok shared files"].startswith("a job writes ")
    assert "slurm-status-command: squeue" not in said["ok accounting"]  # it is there already
    assert said["ok account"].startswith("none is named: ")
    assert said["!! torch"].startswith("torch does not see a GPU in a job that has one -> ")
    project.edit(**{"slurm-status-command": "sacct"})
    assert "add `slurm-status-command: squeue`" in project.doctor()["!! accounting"]
    text = project.profile.read_text()
    project.profile.write_text(text.replace("slurm_partition: gpu", "slurm_partition: a100"))
    assert "to one of cpu, gpu, preemptible" in project.doctor()["!! partition"]
