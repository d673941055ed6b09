"""What may load what: the order of folders is linted, and what Snakemake reads at every start stays light."""

import subprocess
import sys

import pytest

from conftest import REPO

LIGHT = """
import sys
from pathlib import Path
from recscale.cluster import attempt, doctor, request, slurm
from recscale.plan import cost
from recscale.study import execution, folder, schedule, schema, study
from recscale.train import claim
study.load({study!r})
heavy = [name for name in ("numpy", "pandas", "torch", "scipy", "pyarrow", "polars") if name in sys.modules]
sys.exit(", ".join(heavy) or 0)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)


@pytest.mark.parametrize("study", sorted(path.name for path in (REPO / "config/studies").glob("*.yaml")))
def test_what_every_start_reads_loads_nothing_heavy(study):
    done = run(LIGHT.format(study=f"config/studies/{study}"))
    assert done.returncode == 0, f"loads {done.stderr}"


def test_folders_import_downwards_and_in_no_circle():
    """By import-linter, as `make lint` does; here too, so that a test run tells."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as go; go()", "--no-logo"],
        capture_output=True, text=True, check=False, cwd=REPO,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_folder_says_what_it_is_for_and_imports_nothing():
    for path in (REPO / "src/recscale").glob("**/__init__.py"):
        if path.parent.name != "recscale":
            text = path.read_text()
            assert text.startswith('"""'), path
            assert "import " not in text.split('"""')[2], path
