"""Each check is one line with a remedy where something is wrong; SLURM's answers are those of tests/slurm."""

import subprocess
import sys

import pytest

from conftest import REPO
from recscale import doctor
from recscale.doctor import Check
from recscale.errors import InputError

PROFILE = REPO / "profiles/slurm/config.yaml"


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("infinite", float("inf")),
        ("30:00", 30),
        ("4:00:00", 240),
        ("7-00:00:00", 10_080),
        ("1-12:30:00", 2190),
    ],
)
def test_limits_of_time_as_sinfo_prints_them(limit, minutes):
    assert doctor.minutes(limit) == minutes


def test_the_partition_is_there_and_long_enough():
    there = [["cpu", "1-00:00:00", "(null)"], ["gpu", "12:00:00", "gpu:2"]]
    assert doctor._partition(there, {"slurm_partition": "gpu", "max_minutes": 720}, PROFILE).remedy == ""
    short = doctor._partition(there, {"slurm_partition": "gpu", "max_minutes": 721}, PROFILE)
    assert short.text() == f"!! partition: gpu, up to 720 minutes -> set max_minutes in {PROFILE} to that"
    other = doctor._partition(there, {"slurm_partition": "a100"}, PROFILE)
    assert other.remedy == f"set slurm_partition of train in {PROFILE} to one of cpu, gpu"
    assert doctor._partition(there, {}, PROFILE) == Check("partition", "the default one of cpu, gpu")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    assert doctor._links(tmp_path / "results").remedy == ""
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        doctor._links(tmp_path / "file/results")


def test_an_archive_that_is_there_needs_no_host(tmp_path):
    entry = {"sources": [{"name": "log", "files": [{"file": "log.zip", "url": "https://localhost/log.zip"}]}]}
    gone = doctor._downloads(tmp_path, entry)
    assert (
        gone.remedy
        == f"recscale fetch --list names the files: download them elsewhere and put them into {tmp_path}/"
    )
    (tmp_path / "log.zip").write_text("")
    assert doctor._downloads(tmp_path, entry) == Check("data", f"log is in {tmp_path}/")


def test_a_machine_without_sbatch_is_told_what_to_do(tmp_path):
    """PATH holds nothing but Python here."""
    done = subprocess.run(
        [sys.executable, "-m", "recscale", "doctor", "quick"],
        cwd=REPO, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    line = done.stdout.splitlines()[-1]
    assert line.startswith("!! sbatch: is not on this machine -> train here with `snakemake --cores N`")
    assert done.stderr == ""


def test_a_broken_profile_is_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text("executor: [")
    with pytest.raises(InputError, match=r"config\.yaml: is not a profile of Snakemake"):
        doctor._read(tmp_path / "config.yaml")
