"""The package stands alone: a wheel, installed where this checkout is not seen."""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from conftest import REPO

CLONE = ("config", "profiles", "workflow", "Snakefile", "results/published")
VERBS = ("fetch", "prepare", "card", "plan", "status", "report", "plot", "publish", "bench", "fit",
         "allocate", "forecast", "doctor", "train", "task", "collect")  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment that sees the locked packages and the wheel; returns a call of its `recscale`."""
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"  # a build writes beside its source
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPO / "src", source / "src", ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(source)]
    subprocess.run(wheel, check=True, capture_output=True)
    (path,) = made.glob("recscale-*.whl")
    target = made / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(path)], check=True)
    # The locked packages without the editable install of this checkout: their folder, but not its .pth.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = f"{target}:{sysconfig.get_path('purelib')}"

    def call(*args, cwd):
        command = [sys.executable, "-S", "-m", "recscale", *map(str, args)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    return call


def fine(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_verb_says_what_it_does_outside_a_clone(installed, tmp_path):
    assert "VERB" in fine(installed("--help", cwd=tmp_path))
    assert fine(installed("--version", cwd=tmp_path)).startswith("recscale ")
    for verb in VERBS:
        assert "usage" in fine(installed(verb, "--help", cwd=tmp_path))


def test_tables_and_logs_need_no_clone(installed, tmp_path):
    rows = "\n".join(f"{10**k},{2 + 30 * 10 ** (-0.3 * k)}" for k in range(2, 10))
    (tmp_path / "runs.csv").write_text(f"N,loss\n{rows}\n")
    told = fine(installed("fit", "runs.csv", "--law", "saturating_power", "--x", "N", "--y", "loss",
                          "--json", "law.json", "--plot", "law.png", cwd=tmp_path))  # fmt: skip
    assert "alpha" in told
    assert "1e+10" in fine(installed("forecast", "law.json", "--N", "1e10", cwd=tmp_path))
    lines = "\n".join(f"{u},{i},{1_600_000_000 + 9 * u + i}" for u in range(30) for i in range(6))
    (tmp_path / "clicks.csv").write_text(f"user,item,timestamp\n{lines}\n")
    assert "180" in fine(installed("prepare", "--check", "clicks.csv", cwd=tmp_path))


def test_studies_work_inside_a_clone(installed, tmp_path):
    for name in CLONE:
        source, target = REPO / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    assert "12 runs" in fine(installed("status", "quick", cwd=tmp_path))
    assert "device hours" in fine(installed("plan", "quick", "--device", "H100", cwd=tmp_path))
    assert "ml-1m" in fine(installed("fetch", "--list", cwd=tmp_path))
    fine(installed("plot", "quick", "loss_vs_n", "--from", "published", "--out", "n.png", cwd=tmp_path))
    assert (tmp_path / "n.png").stat().st_size > 1000
    assert "Python" in installed("doctor", "quick", cwd=tmp_path).stdout


def test_a_verb_that_needs_a_workflow_folder_says_so_in_a_line(installed, tmp_path):
    done = installed("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "config/config.yaml" in done.stderr
    assert done.stderr.count("\n") == 1
