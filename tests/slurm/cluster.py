"""A throwaway SLURM with pretend GPUs, and projects that run on it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from test_workflow import ENV, STUDY, make_project, write_study

HERE = Path(__file__).parent
SYSTEM = Path("/etc/slurm/slurm.conf")
SWITCH = "RECSCALE_TEST_SLURM"
SKIP = f"starts a SLURM of its own: installs packages, writes {SYSTEM}; as root, {SWITCH}=1 switches it on"
CONTROLLERS = []
needs_slurm = pytest.mark.skipif(os.environ.get(SWITCH) != "1", reason=SKIP)


@contextmanager
def cluster(folder, accounting, gpus):
    """SLURM while the block lasts; the tests' environment finds it."""
    command = [HERE / "slurm-up", *(["--accounting"] if accounting else []), folder]
    environment = os.environ | {"SLURM_UP_GPUS": str(gpus), "SLURM_UP_OWNER": str(os.getpid())}
    up = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if up.returncode:
        pytest.fail(up.stderr, pytrace=False)
    ENV["SLURM_CONF"] = str(folder / "etc/slurm.conf")
    try:
        yield
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C
        for controller in CONTROLLERS:  # of tests that failed
            controller.kill()
            controller.wait()
        del ENV["SLURM_CONF"]
        subprocess.run([HERE / "slurm-down", "--remove", folder], capture_output=True, check=True)
        signal.signal(signal.SIGINT, before)


class Project:
    """A clone with one study named tiny and the profile edited as its comments say."""

    def __init__(self, folder, study, data=None, accounting=True, **train):
        self.environment = dict(ENV)
        self.folder = make_project(folder, STUDY | study)
        if data is not None:
            shutil.copytree(data / "results/data", folder / "results/data")
        path = folder / "profiles/slurm/config.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["set-resources"]["train"] |= {"device": "core"} | train
        profile |= {"set-threads": {"train": 1}, "slurm-init-seconds-before-status-checks": 8}
        profile |= {"latency-wait": 5}
        if not accounting:
            profile["slurm-status-command"] = "squeue"
        path.write_text(yaml.safe_dump(profile))
        self.profile = path

    def study(self, study):
        write_study(self.folder, study)

    def edit(self, **keys):
        profile = yaml.safe_load(self.profile.read_text())
        self.profile.write_text(yaml.safe_dump(profile | keys))

    def command(self, *args):
        base = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--config", "study=tiny"]
        return [*base, *args]

    def start(self, *args):
        started = subprocess.Popen(
            self.command(*args), cwd=self.folder, env=self.environment, start_new_session=True,
            stdout=(self.folder / "controller.log").open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        CONTROLLERS.append(started)
        return started

    def run(self, *args, seconds=900):
        """Exit code and output of a whole run."""
        done = subprocess.run(
            self.command(*args),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        return done.returncode, done.stdout + done.stderr

    def said(self):
        return (self.folder / "controller.log").read_text()

    def runs(self):
        """Folders of the study's runs, by seed."""
        from recscale.study import study

        names = study.load(self.folder / "config/studies/tiny.yaml").runs
        return {run.seed: self.folder / "results/tiny/runs" / name for name, run in names.items()}

    def specs(self):
        from recscale.study import study

        return {r.seed: r.spec() for r in study.load(self.folder / "config/studies/tiny.yaml").runs.values()}

    def job(self, run):
        """The newest job of a run that SLURM knows, and its state."""
        lines = slurm("squeue", "-h", "-t", "all", "-o", "%i|%T|%Z|%k").splitlines()
        found = [
            line.split("|")
            for line in lines
            if line.endswith(f"|{self.folder}|rule_train_wildcards_{run.name}")
        ]
        return max(((int(i), state) for i, state, *_ in found), default=(None, "NONE"))

    def jobs_said(self, run):
        """All that the jobs of a run wrote to SLURM's logs."""
        return "".join(p.read_text() for p in self.folder.glob(f"logs/slurm/rule_train/{run.name}/*.log"))

    def status(self):
        return self.ask("status")

    def doctor(self):
        """Its lines: what was found, by mark and name of the check."""
        said = self.ask("doctor", check=False)  # it ends with 1 where something has a remedy
        return dict(line.split(": ", 1) for line in said.splitlines())

    def ask(self, command, check=True):
        """What `recscale COMMAND tiny` prints."""
        words = ["recscale", command, "tiny"]
        return subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=check
        ).stdout


def slurm(*command):
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=True).stdout


def wait_for(condition, seconds=400):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)
    return found


def epoch(run):
    """Last epoch that a run's log names."""
    log = run.parents[1] / f"logs/train/{run.name}.log"
    found = re.findall(r": epoch (\d+)/", log.read_text()) if log.exists() else []
    return int(found[-1]) if found else 0


def long(epochs, seeds):
    """Runs of many short epochs."""
    return {
        "run": STUDY["run"] | {"epochs": epochs, "data_fraction": 0.01},
        "sizes": {"1x8": {}},
        "grid": [{"seed": list(seeds)}],
        "laws": {},
        "figures": [],
    }


def truth(spec, project, folder):
    """A run folder: the spec trained here, in one go, on the project's data."""
    command = ["recscale", "train", "--spec", spec, "--data", project / "results/data/ml-1m", "--out", folder]
    subprocess.run(command, env=ENV, check=True, capture_output=True)
    return folder


def at_once(job):
    """Whether a held job may start now: SLURM holds a requeued one for two minutes, tests do not wait."""
    asked = ["scontrol", "update", f"jobid={job}", "starttime=now"]
    return subprocess.run(asked, env=ENV, capture_output=True, check=False).returncode == 0


def same(one, other):
    """Whether two run folders hold the same point: weights bit for bit, all numbers but times."""
    points = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    weights = [(run / "model.safetensors").read_bytes() for run in (one, other)]
    for point in points:
        for row in point["epochs"]:
            del row["seconds"], row["targets_per_second"]
    keys = ("spec", "test", "tests", "epochs", "chosen_epoch", "D_seen", "C", "changes")
    return weights[0] == weights[1] and all(points[0][key] == points[1][key] for key in keys)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A project whose dataset is prepared."""
    folder = make_project(tmp_path_factory.mktemp("data"), STUDY)
    command = ["snakemake", "--cores", "2", "--config", "study=tiny", "--", "results/data/ml-1m/card.json"]
    subprocess.run(command, cwd=folder, env=ENV, capture_output=True, check=True)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A function: the folder of a run that was trained here, in one go."""
    known = {}

    def make(project, seed=1):
        spec = project.specs()[seed]
        if spec not in known:
            known[spec] = truth(spec, project.folder, tmp_path_factory.mktemp("truth"))
        return known[spec]

    return make
