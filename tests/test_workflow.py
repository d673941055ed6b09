"""The workflow as a user runs it: real Snakemake on a tiny study of real MovieLens-1M users."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from conftest import REPO
from recscale.laws.names import LAW_RECIPE

PARTS = ("Snakefile", "workflow", "profiles", "slurm", "config", "src", "envs")
ENV = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
STUDY = {
    "title": "A sixteenth of the users, for tests",
    "dataset": "ml-1m",
    "run": {"epochs": 2, "learning_rate": 0.02, "batch_size": 8, "data_fraction": 0.0625},
    "sizes": {"1x8": {}, "1x16": {}, "1x24": {}},
    "grid": [{"sizes": "all"}, {"sizes": ["1x8"], "seed": 2}, {"sizes": ["1x8"], "data_fraction": 0.03}],
    "laws": {
        "loss_vs_N": {"x": "N", "where": {"data_fraction": 0.0625}},
        "loss_vs_D_1x8": {"x": "D", "where": {"size": "1x8", "seed": 1}},
    },
    "figures": ["learning_curves"],  # and one a law; each is a process of its own
}


def make_project(folder, study):
    """A copy of the workflow with one study, as in a clone; archives come from the repository."""
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        source = REPO / part
        if source.is_dir() and not source.is_symlink():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part, follow_symlinks=False)
    (REPO / "raw").mkdir(exist_ok=True)  # where these tests are the first of a clone
    (folder / "raw").symlink_to(REPO / "raw")
    write_study(folder, study)
    return folder


def write_study(folder, study, sort_keys=True):
    path = folder / "config/studies/tiny.yaml"
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=sort_keys))


def command(*args):
    base = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "study=tiny"]
    return [*base, *args]


def snakemake(project, *args):
    return subprocess.run(
        command(*args), cwd=project, env=ENV, capture_output=True, text=True, check=False, timeout=500
    )


def planned(project, *args):
    """Jobs that a dry-run would start, by rule."""
    done = snakemake(project, "--dry-run", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)total", done.stdout + done.stderr, re.S)
    if table is None:
        assert "Nothing to be done" in done.stdout + done.stderr
        return {}
    rows = [line.split() for line in table.group(1).splitlines() if line.strip()]
    return {rule: int(count) for rule, count in rows if rule != "all"}


FIGURES = [*STUDY["figures"], *(f"fit_{law}" for law in STUDY["laws"])]
FOLLOWS = {"collect": 1, "fit": 1, "plot": len(FIGURES)}


@pytest.fixture(scope="module")
def finished(ml_1m_log, tmp_path_factory):
    """The tiny study, run from the archive to the figures; tests work on copies."""
    project = make_project(tmp_path_factory.mktemp("finished"), STUDY)
    done = snakemake(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def project(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def test_one_command_makes_everything(finished):
    results = finished / "results/tiny"
    points = pd.read_parquet(results / "points.parquet")
    assert len(points) == len(list((results / "runs").iterdir())) == 5
    assert set(points["status"]) == {"finished"}
    pd.testing.assert_frame_equal(pd.read_csv(results / "points.csv"), points, check_dtype=False)
    laws = {p.stem: json.loads(p.read_text()) for p in (results / "laws").glob("*.json")}
    # Three sizes for three constants, hardly trained: no law, whichever way the losses fall.
    assert laws["loss_vs_N"]["status"] in ("underdetermined", "flat", "not_decreasing")
    assert laws["loss_vs_D_1x8"]["status"] == "refused"  # two fractions
    for name in FIGURES:
        for ending in ("png", "pdf", "csv"):
            assert (results / f"figures/{name}.{ending}").stat().st_size > 100


def test_every_trained_point_is_better_than_guessing(finished):
    """Uniform guessing over 3,700 items costs ln 3700 = 8.2 nats."""
    points = pd.read_parquet(finished / "results/tiny/points.parquet")
    assert (points["test_loss"] < 7.6).all()


def test_a_second_run_plans_nothing(project):
    assert planned(project) == {}


def test_deleting_a_point_plans_that_training_and_what_follows(project):
    (point,) = (project / "results/tiny/runs").glob("1x16-*")
    (point / "metrics.json").unlink()
    assert planned(project) == {"train": 1} | FOLLOWS
    before = {p: p.stat().st_mtime_ns for p in project.glob("results/tiny/runs/*/metrics.json")}
    assert snakemake(project).returncode == 0
    assert (point / "metrics.json").exists()
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert planned(project) == {}


def test_adding_a_size_plans_its_runs_and_the_aggregates(project):
    sizes = STUDY["sizes"] | {"2x8": {"n_heads": 2}}
    write_study(project, STUDY | {"sizes": sizes})
    assert planned(project) == {"train": 1} | FOLLOWS


def test_editing_a_figure_redraws_figures_only(project):
    path = project / "src/recscale/report/figures/study.py"
    path.write_text(path.read_text() + "\n# an edit\n")
    assert planned(project) == {"plot": len(FIGURES)}


SHIM = """#!{python}
import atexit, os, sys
def note():
    loaded = [m.__file__ for n, m in list(sys.modules.items()) if n.startswith("recscale.")]
    with open(os.environ["LOADED"], "w") as file:
        file.write("\\n".join(path for path in loaded if path and not path.endswith("__init__.py")))
atexit.register(note)
from recscale.cli.main import main
main()
"""


def listed_and_loaded(project, rules):
    """By rule: modules of recscale among its inputs, and those that its command has loaded."""
    bin = project / "bin"
    bin.mkdir()
    (bin / "recscale").write_text(SHIM.format(python=sys.executable))
    (bin / "recscale").chmod(0o755)
    env = ENV | {"PATH": f"{bin}:{ENV['PATH']}", "LOADED": str(project / "loaded")}
    done = snakemake(project, "--dry-run", "--forceall", "--printshellcmds")
    said = done.stdout + done.stderr
    found = {}
    for rule in rules:
        (inputs, shell), *_ = re.findall(
            rf"rule {rule}:\n    input: (.*?)\n.*?\nShell command: (.*?)\n", said, re.S
        )
        made = subprocess.run(
            ["bash", "-c", shell], cwd=project, env=env, capture_output=True, text=True, check=False
        )
        loaded = (project / "loaded").read_text().splitlines()
        assert "recscale: " not in made.stdout, made.stdout
        source = str(REPO / "src") + "/"
        found[rule] = (
            {path.removeprefix("src/") for path in inputs.split(", ") if path.startswith("src/")},
            {path.removeprefix(source) for path in loaded},
        )
    return found


def test_rules_list_the_modules_that_their_commands_load(project):
    for rule, (listed, loaded) in listed_and_loaded(
        project, ["card", "references", "collect", "fit", "plot"]
    ).items():
        assert listed == loaded, rule


def test_reordering_and_defaults_written_out_plan_nothing(project):
    study = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(STUDY.items())
    }
    study["laws"]["loss_vs_D_1x8"] = {"where": {"seed": 1, "size": "1x8"}, "x": "D"}
    study["run"] |= {"dropout": 0.1, "max_len": 50}
    write_study(project, study, sort_keys=False)
    assert planned(project) == {}


def test_a_checkout_that_touches_every_file_plans_nothing(project):
    for path in [*project.glob("src/recscale/**/*.py"), *project.glob("config/**/*.yaml")]:
        path.touch()
    assert planned(project) == {}


def test_another_learning_rate_trains_only_its_size(project):
    sizes = STUDY["sizes"] | {"1x24": {"learning_rate": 0.01}}
    write_study(project, STUDY | {"sizes": sizes})
    assert planned(project) == {"train": 1} | FOLLOWS


def test_a_point_of_another_spec_is_refused_by_collect(project):
    (point,) = project.glob("results/tiny/runs/1x16-*/metrics.json")
    content = json.loads(point.read_text())
    content["spec"]["dropout"] = 0.7
    point.write_text(json.dumps(content))
    done = snakemake(project)
    assert done.returncode == 1
    assert f"recscale: {point.relative_to(project)}: was made by another spec" in done.stdout + done.stderr


def test_the_report_is_one_file_and_says_the_laws(project):
    done = subprocess.run(
        ["recscale", "report", "tiny"], cwd=project, env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    html = (project / "results/tiny/report.html").read_text()
    assert "learning_curves.png" in html
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?://', html)
    assert "loss_vs_N: " in done.stdout
    assert "results/tiny/report.html" in done.stdout
    before = (project / "results/tiny/report.html").stat().st_mtime_ns
    subprocess.run(["recscale", "report", "tiny"], cwd=project, env=ENV, check=True, capture_output=True)
    assert (project / "results/tiny/report.html").stat().st_mtime_ns == before


def test_another_filter_prepares_the_data_again(project):
    path = project / "config/datasets.yaml"
    assert planned(project) == {}
    text = path.read_text()
    path.write_text(text.replace("title: MovieLens 1M\n", "title: MovieLens, one million\n", 1))
    assert planned(project) == {}
    path.write_text(text.replace("  withhold_above: 15", "  min_rating: 4\n  withhold_above: 15", 1))
    plan = planned(project)
    assert plan["prepare"] == 1
    assert plan["train"] == 5
    assert "fetch" not in plan


def test_status_prints_the_grid(project):
    (point,) = (project / "results/tiny/runs").glob("1x16-*")
    (point / "metrics.json").unlink()
    (point / "log.jsonl").unlink()
    done = subprocess.run(
        ["recscale", "status", "tiny"], cwd=project, env=ENV, capture_output=True, text=True, check=True
    )
    assert "5 runs: 4 done, 1 missing" in done.stdout
    assert re.search(rf"{point.name} +missing", done.stdout)


def recscale(project, *args):
    done = subprocess.run(
        ["recscale", *args], cwd=project, env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_published_figures_are_drawn_and_restored_points_trained_by_nobody(project):
    results, published = project / "results/tiny", project / "results/published/tiny"
    assert "5 of 5 runs, 5 of them new" in recscale(project, "publish", "tiny")
    assert {path.stem for path in (published / "figures").iterdir()} == set(FIGURES)
    assert {path.name for path in (published / "laws").iterdir()} == {
        path.name for path in (results / "laws").iterdir()
    }
    drawn = {path.name: path.read_text() for path in (results / "figures").glob("*.csv")}
    shutil.rmtree(results)
    said = recscale(project, "plot", "tiny", "--from", "published")
    assert f"{len(FIGURES)} figures in results/tiny/figures" in said
    assert drawn == {path.name: path.read_text() for path in (results / "figures").glob("*.csv")}
    assert "5 points restored" in recscale(project, "publish", "tiny", "--restore")
    plan = planned(project)
    assert "train" not in plan
    assert plan["collect"] == plan["fit"] == 1
    study = STUDY | {"grid": [*STUDY["grid"], {"sizes": ["1x8"], "seed": 3}]}
    write_study(project, study)
    assert planned(project)["train"] == 1
    said = recscale(project, "publish", "tiny")
    assert "5 of 6 runs, 0 of them new" in said
    assert "laws: not published, not fitted yet" in said
    assert not (published / "laws").exists()  # they were of five runs, the study has six


def test_a_flat_law_is_written_drawn_and_published(project):
    """Runs of one and the same loss: no law, and nothing that stops the workflow."""
    results, published = project / "results/tiny", project / "results/published/tiny"
    for path in results.glob("runs/*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"test_loss": 7.25}))
    done = snakemake(project, "--forcerun", "collect")
    assert done.returncode == 0, done.stdout + done.stderr
    law = json.loads((results / "laws/loss_vs_N.json").read_text())
    assert (law["status"], law["parameters"], law["recipe"]) == ("flat", None, LAW_RECIPE)
    assert "loss_vs_N: flat. The measured value does not change" in (results / "laws/laws.csv").read_text()
    assert (results / "figures/fit_loss_vs_N.csv").stat().st_mtime > path.stat().st_mtime
    assert "5 of 5 runs" in recscale(project, "publish", "tiny")
    assert json.loads((published / "laws/loss_vs_N.json").read_text()) == law


def test_moving_the_archives_plans_nothing(project):
    assert planned(project, "--config", "study=tiny", "raw_dir=/scratch/raw") == {}


def test_another_recipe_of_laws_fits_them_again_and_trains_nothing(project):
    rules = project / "workflow/rules/laws.smk"
    rules.write_text(rules.read_text().replace("recipe=LAW_RECIPE", "recipe=99"))
    assert planned(project)["fit"] == 1
    assert not {"collect", "train"} & set(planned(project))


def long(project, finished, epochs, seeds=(1, 2, 3)):
    """A project with a run a seed of many short epochs, on the data of the finished one; their folders."""
    study = STUDY | {
        "run": STUDY["run"] | {"epochs": epochs, "data_fraction": 0.01},
        "sizes": {"1x8": {}},
        "grid": [{"seed": list(seeds)}],
        "laws": {},
        "figures": [],
    }
    make_project(project, study)
    shutil.copytree(finished / "results/data", project / "results/data")
    names = [f"1x8-e{epochs}-lr0.02-f0.01-s{seed}-batch_size8" for seed in seeds]
    return [project / "results/tiny/runs" / name for name in names]


def log_of_run(run):
    path = run.parents[1] / f"logs/train/{run.name}.log"
    return path.read_text() if path.exists() else ""


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def start(project):
    return subprocess.Popen(
        command(), cwd=project, env=ENV, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_ctrl_c_saves_where_it_is_and_the_next_start_goes_on_there(finished, tmp_path):
    """Runs of a million epochs: they cannot end before they are interrupted."""
    runs = long(tmp_path / "long", finished, 1_000_000, seeds=(1, 2))  # both at once on two cores
    process = start(tmp_path / "long")
    wait_for(lambda: all(": epoch 2/" in log_of_run(run) for run in runs))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    places = []
    for run in runs:
        stopped = re.search(r"stopped by SIGINT (after epoch .*); saved", log_of_run(run))
        assert stopped is not None, log_of_run(run)[-500:]
        places.append(stopped[1])
        assert (run / "last.safetensors").exists()
        assert not (run / "running.json").exists()
    process = start(tmp_path / "long")
    wait_for(lambda: all(": continues after" in log_of_run(run) for run in runs))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    for run, where in zip(runs, places, strict=True):
        assert f": continues {where}\n" in log_of_run(run)


def test_a_killed_controller_trains_no_finished_point_again(finished, tmp_path):
    """SIGKILL to Snakemake alone: its trainings go on and finish; the next start keeps them."""
    project = tmp_path / "long"
    runs = long(project, finished, 4)
    process = start(project)
    wait_for(lambda: sum((run / "running.json").exists() for run in runs) == 2)
    runs.sort(key=lambda run: not (run / "running.json").exists())  # Snakemake chooses which two
    trainings = [json.loads((run / "running.json").read_text())["pid"] for run in runs[:2]]
    for pid in trainings:  # they shall not end before their controller does
        os.kill(pid, signal.SIGSTOP)
    assert not any((run / "metrics.json").exists() for run in runs)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for pid in trainings:
        os.kill(pid, signal.SIGCONT)
    points = [run / "metrics.json" for run in runs]
    wait_for(lambda: all(point.exists() for point in points[:2]))
    before = [point.stat().st_mtime_ns for point in points[:2]]
    locked = snakemake(project)
    assert locked.returncode == 1
    assert "--unlock" in locked.stdout + locked.stderr
    assert snakemake(project, "--unlock").returncode == 0
    assert planned(project) == {"train": 1, "references": 1, "collect": 1}
    assert snakemake(project).returncode == 0
    assert [point.stat().st_mtime_ns for point in points[:2]] == before
    assert points[2].exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"epoch": 2}}, "config/studies/tiny.yaml: run: Additional properties"),
        ({"run": {"learning_rate": "fast"}}, "tiny.yaml: run.learning_rate: 'fast' is not of type"),
        ({"dataset": "ml-2m"}, "tiny.yaml: dataset: ml-2m is not one of ml-1m"),
    ],
)
def test_a_mistake_in_the_study_is_one_line_before_anything_runs(tmp_path, change, message):
    project = make_project(tmp_path / "bad", STUDY | change)
    done = snakemake(project)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if message in line]
    assert done.returncode == 1
    assert len(lines) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (project / "results").exists()


def test_an_unknown_study_names_the_known_ones(tmp_path):
    project = make_project(tmp_path / "bad", STUDY)
    done = snakemake(project, "--config", "study=quik")
    assert done.returncode == 1
    assert re.search(r"quik\.yaml: there is no such file; .* has .*quick", done.stdout + done.stderr)


def test_the_default_profile_leaves_the_slurm_profile_whole(tmp_path):
    """profiles/default is merged over --profile: no resource may change by it."""
    printed = []
    for keep in (True, False):
        project = make_project(tmp_path / f"keep-{keep}", STUDY)
        if not keep:
            shutil.rmtree(project / "profiles/default")
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--dry-run", "--profile", "slurm", "--config", "study=tiny"],
            cwd=project, env=ENV, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        lines = re.findall(r"^ +(?:resources|threads): (.*)$", done.stdout + done.stderr, re.M)
        printed.append(sorted(sorted(line.split(", ")) for line in lines))
    assert printed[0] == printed[1]
    assert any("gpu=1" in line for line in printed[0])


def test_the_workflow_is_one_sentence_a_rule():
    """Every rule has a docstring and a log; helper functions live in common.smk only."""
    for path in (REPO / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        assert text.startswith('"""')
        if path.name != "common.smk":
            assert "\ndef " not in text
        for rule in re.split(r"\nrule ", text)[1:]:
            assert re.match(r'\w+:\n    """', rule), rule[:40]
            assert "log:" in rule
            assert "shell:" in rule


def slurm_profile(project, *args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "slurm", "--config", "study=tiny", *args],
        cwd=project, env=ENV | kwargs, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def test_a_machine_without_sbatch_is_one_line_that_says_what_to_do(tmp_path):
    """PATH has all commands but SLURM's."""
    project, commands = make_project(tmp_path / "project", STUDY), tmp_path / "bin"
    commands.mkdir()
    for folder in reversed(ENV["PATH"].split(":")):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            link = commands / name
            link.unlink(missing_ok=True)
            if name not in ("sbatch", "scontrol", "squeue", "sinfo", "sacct", "sacctmgr", "sshare"):
                link.symlink_to(f"{folder}/{name}")
    done = slurm_profile(project, PATH=str(commands))
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.count("recscale: there is no sbatch on this machine: run this on a login node") == 1
    assert said.splitlines()[-1].startswith("recscale: ")
    assert "Traceback" not in said
    assert not (project / "results").exists()
    assert slurm_profile(project, "--dry-run", PATH=str(commands)).returncode == 0


def test_what_a_cluster_refuses_ends_in_a_line_that_says_where_to_look(ml_1m_log, tmp_path):
    project, commands = make_project(tmp_path / "project", STUDY), tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "sacct", "sacctmgr", "sshare", "sinfo", "scontrol", "squeue"):
        refuses = "echo 'Invalid account' >&2; exit 1" if name == "sbatch" else "exit 0"
        (commands / name).write_text(f"#!/bin/sh\n{refuses}\n")
        (commands / name).chmod(0o755)
    done = slurm_profile(project, PATH=f"{commands}:{ENV['PATH']}")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Invalid account" in said
    assert "recscale status tiny says where every run stands; recscale doctor tiny looks for" in said
    assert "Traceback" not in said


def test_a_wrong_limit_in_the_profile_is_one_line(tmp_path):
    project = make_project(tmp_path / "project", STUDY)
    profile = project / "profiles/slurm/config.yaml"
    profile.write_text(profile.read_text().replace("device: A100-80GB", "device: A1000"))
    done = slurm_profile(project, "--dry-run")
    assert done.returncode == 1
    assert "recscale: profile: train: device: A1000 is not one of A100-80GB, H100" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_run_asks_for_is_shown_capped_and_known_only_with_its_dataset(tmp_path):
    """A dry-run prints it; where neither entry nor prepared folder tells the size of the data, not yet."""
    project = make_project(tmp_path / "project", STUDY)
    profile, datasets = project / "profiles/slurm/config.yaml", project / "config/datasets.yaml"
    text = profile.read_text()
    limits = {"max_minutes: 1440": "max_minutes: 7", "max_mem_mb: 128000": "max_mem_mb: 3000"}
    for key, value in limits.items():
        assert key in text
        text = text.replace(key, value)
    profile.write_text(text)
    shown = re.findall(r"runtime=(\S+), gpu=(\S+),", slurm_profile(project, "--dry-run").stdout)
    assert shown == [("7", "1")] * 5
    content = yaml.safe_load(datasets.read_text())
    del content["ml-1m"]["expect"]
    datasets.write_text(yaml.safe_dump(content))
    said = slurm_profile(project, "--dry-run").stdout
    assert re.findall(r"runtime=(\S+), gpu=(\S+),", said) == [("<TBD>", "<TBD>")] * 5
    profile.write_text(text.replace("# gpu_gres: gpu #", "gpu_gres: gpu:a100 #"))
    datasets.write_text((REPO / "config/datasets.yaml").read_text())
    said = slurm_profile(project, "--dry-run").stdout
    assert said.count("gres=gpu:a100:1") == 5
    assert "gpu=" not in said


def test_the_slurm_profile_is_short_and_every_setting_has_its_reason():
    lines = (REPO / "profiles/slurm/config.yaml").read_text().splitlines()
    assert len(lines) < 60
    assert sum("<--" in line for line in lines) == 4  # three to edit, and the line that says so


@pytest.mark.heavy
def test_a_dry_run_of_five_thousand_points(tmp_path):
    """At most 40 seconds of a processor and 2 GB, by the SLURM profile, which computes what each asks for."""
    sizes = {f"{layers}x{width}": {} for layers in (1, 2, 4, 8, 12) for width in (8, 16, 32, 64, 128)}
    grid = [{"sizes": "all", "seed": list(range(1, 201))}]
    project = make_project(tmp_path / "project", STUDY | {"sizes": sizes, "grid": grid, "laws": {}})
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)"
    )
    base = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--config", "study=tiny"]
    done = subprocess.run(
        [sys.executable, "-c", code, *base, "--dry-run", "--quiet", "rules"],
        cwd=project, env=ENV, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"train +5000\n", done.stdout + done.stderr)
    status, seconds, kib = (float(number) for number in done.stderr.splitlines()[-1].split())
    print(f"{seconds:.1f} s, {kib / 1e6:.2f} GB")
    assert status == 0
    assert seconds < 40
    assert kib * 1024 < 2e9
