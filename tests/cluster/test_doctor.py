"""Each check is one line with a remedy where something is wrong; SLURM's answers are those of tests/slurm."""

import getpass
import subprocess
import sys

import pytest

from conftest import REPO
from recscale.cluster import doctor
from recscale.cluster.doctor import Check
from recscale.errors import InputError

PROFILE = REPO / "profiles/slurm/config.yaml"
USER = getpass.getuser()


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
    gone = doctor._links(tmp_path / "file/results")
    assert gone.text() == (
        f"!! results: {tmp_path}/file/results: Not a directory -> set results_dir in config/config.yaml"
    )


@pytest.fixture
def login(tmp_path, monkeypatch):
    """A login node with a healthy SLURM, of which a test changes one command; Python and torch are real."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def does(name, body):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)

    for name in ("sbatch", "scontrol", "sacct", "srun"):
        does(name, "exit 0")
    does("sinfo", "printf 'cpu|1-00:00:00|(null)\\ngpu|infinite|gpu:a100:4(S:0-1)\\n'")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return does


def lines(results, profile=PROFILE):
    """What doctor prints, by name of the check."""
    entry = {"sources": [{"name": "log", "files": []}]}
    return {check.name: check for check in doctor.checks(profile, results, results, entry)}


def test_odd_words_of_sinfo_are_no_partitions(login, tmp_path):
    login("sinfo", "echo 'a warning'; echo 'gpu|infinite|gpu:a100:4(S:0-1)'; echo")
    assert lines(tmp_path)["partition"] == Check("partition", "gpu, of gpu")
    login("sinfo", "echo 'sinfo: error: no answer' >&2; exit 1")
    assert lines(tmp_path)["partition"] == Check(
        "partition", "sinfo: error: no answer", "no partition is known without it: try later"
    )


def test_the_account_is_one_of_the_users(login, tmp_path):
    """As sacctmgr lists them: one a line, again for each partition."""
    login("sacctmgr", "printf 'lab\\nphysics\\nlab\\n'")
    profile = tmp_path / "config.yaml"
    assert lines(tmp_path)["account"] == Check("account", "your default one of lab, physics")
    for account, found in (("Lab", "Lab, of lab, physics"), ("labs", f"labs is none of {USER}'s")):
        profile.write_text(PROFILE.read_text().replace("# slurm_account: lab", f"slurm_account: {account}"))
        check = lines(tmp_path, profile)["account"]
        assert check.found == found
    assert check.remedy == f"set slurm_account in {profile} to one of lab, physics"


def test_accounts_that_the_cluster_does_not_tell_are_not_judged(login, tmp_path):
    profile = tmp_path / "config.yaml"
    profile.write_text(PROFILE.read_text().replace("# slurm_account: lab", "slurm_account: lab"))
    login("sacctmgr", "exit 0")
    assert lines(tmp_path)["account"] == Check("account", f"none is named: the cluster names none of {USER}")
    login("sacctmgr", "echo 'You are not running a supported accounting_storage plugin' >&2; exit 1")
    assert lines(tmp_path, profile)["account"] == Check(
        "account", "lab, unchecked: You are not running a supported accounting_storage plugin"
    )


def test_several_partitions_may_be_named(login, tmp_path):
    """SLURM takes the one that starts first."""
    profile = tmp_path / "config.yaml"
    profile.write_text(PROFILE.read_text().replace("&gpus gpu", '&gpus "gpu,cpu"'))
    assert "max_minutes: 1440" in profile.read_text()
    assert lines(tmp_path, profile)["partition"] == Check("partition", "gpu,cpu, of cpu, gpu")
    profile.write_text(profile.read_text().replace("gpu,cpu", "gpu,a100"))
    assert lines(tmp_path, profile)["partition"].found == "there is no a100"
    login("sinfo", "printf 'cpu|10:00:00|(null)\\ngpu|infinite|gpu:4\\n'")
    profile.write_text(profile.read_text().replace("gpu,a100", "gpu,cpu"))
    assert lines(tmp_path, profile)["partition"].found == "gpu,cpu, up to 600 minutes"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("max_minutes: 1440", "max_minutes: 24h"), "train: max_minutes: 24h is not a whole number"),
        (("device: A100-80GB", "device: V100"), "train: device: V100 is not one of"),
        (("default-resources:", "default-resources: [mem_mb=1]\nother:"), "default-resources: is not a map"),
        (("  train:\n", "  train: 3\n  other:\n"), "set-resources: train: is not a map"),
    ],
)
def test_a_senseless_profile_is_one_line(login, tmp_path, edit, said):
    profile = tmp_path / "config.yaml"
    assert edit[0] in PROFILE.read_text()
    profile.write_text(PROFILE.read_text().replace(*edit, 1))
    with pytest.raises(InputError, match=said):
        lines(tmp_path, profile)


def test_an_emptied_profile_is_read(login, tmp_path):
    """Lines under a key that are all commented leave nothing."""
    profile = tmp_path / "config.yaml"
    profile.write_text("default-resources:\nset-resources:\n  train:\n    slurm_extra:\n    max_gpus: 0\n")
    assert lines(tmp_path, profile)["GPUs"].remedy == ""


def test_no_job_is_submitted_for_a_folder_that_cannot_be_written(login, tmp_path):
    (tmp_path / "file").write_text("")
    login("srun", "exit 3")
    assert list(lines(tmp_path / "file/results"))[-1] == "GPUs"


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


@pytest.mark.parametrize("text", ["executor: [", "- executor\n", ""])
def test_a_broken_profile_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: is not a profile of Snakemake"):
        doctor._read(tmp_path / "config.yaml")
