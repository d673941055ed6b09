"""slurm-up touches no other SLURM, and clears away what its own tests left; no SLURM is started here."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cluster import HERE, SYSTEM, needs_slurm

pytestmark = needs_slurm
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "apt-get")


@pytest.fixture
def up(tmp_path):
    """A function that runs slurm-up where SLURM's commands are installed, but munged does not start."""
    assert not SYSTEM.is_symlink()
    assert not SYSTEM.exists()
    there = SYSTEM.parent.exists()
    SYSTEM.parent.mkdir(exist_ok=True)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in COMMANDS:
        (commands / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/called; exit 1\n")
        (commands / name).chmod(0o755)

    def run(*left_out, **more):
        for name in left_out:
            (commands / name).unlink()
        path = f"{commands}:/usr/bin:/bin"
        return subprocess.run(
            [HERE / "slurm-up", tmp_path / "new"],
            env={"PATH": path, **more}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    yield run
    SYSTEM.unlink(missing_ok=True)
    (SYSTEM.parent / ".slurm-up").unlink(missing_ok=True)
    if not there:
        SYSTEM.parent.rmdir()


@pytest.fixture
def daemon(tmp_path):
    """A function that starts something with the name of a daemon, which says the folder that it is of."""
    started = []

    def start(name, folder):
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        shutil.copy("/bin/sh", program)
        words = [program, "-c", "sleep 60; :", name, "-f", f"{folder}/etc/slurm.conf"]
        started.append(subprocess.Popen(words))
        while Path(f"/proc/{started[-1].pid}/comm").read_text() != f"{name}\n":
            time.sleep(0.01)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def refused(done, tmp_path):
    """What is said; nothing was called, installed or made."""
    assert done.returncode == 1
    assert not (tmp_path / "called").exists()
    assert not (tmp_path / "new").exists()
    return done.stderr


def went_on(done, tmp_path):
    """What is said; it came as far as to start the first daemon."""
    assert (tmp_path / "called").read_text() == "munged\n"
    return done.stderr


def test_a_slurm_of_the_machine_is_not_touched(up, tmp_path):
    """Its file, or a link to the one that all nodes share, also where that is not mounted."""
    SYSTEM.write_text("ClusterName=real\n")
    assert f"a SLURM of its own ({SYSTEM}): not touching it" in refused(up("slurmctld"), tmp_path)
    assert SYSTEM.read_text() == "ClusterName=real\n"
    shared = tmp_path / "shared/slurm.conf"
    for exists in (False, True):
        if exists:
            shared.parent.mkdir()
            shared.write_text("ClusterName=real\n")
        SYSTEM.unlink()
        SYSTEM.symlink_to(shared)
        assert f"is a link to {shared}): not touching it" in refused(up(), tmp_path)
        assert SYSTEM.readlink() == shared


def test_a_slurm_whose_file_is_elsewhere_is_not_touched(up, daemon, tmp_path):
    conf = tmp_path / "opt/etc/slurm.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("")
    assert f"({conf}): not touching it" in refused(up(SLURM_CONF=str(conf)), tmp_path)
    process = daemon("slurmd", tmp_path / "opt")
    assert f"(slurmd is process {process.pid}): not touching it" in refused(up(), tmp_path)
    assert process.poll() is None


def left(tmp_path, owner):
    """A state folder with its link, as slurm-up leaves it while it is up."""
    folder = tmp_path / "old"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/slurm.conf").write_text("")
    began = Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[19] if owner else ""
    (folder / ".slurm-up").write_text(f"{owner or ''} {began}\n")
    SYSTEM.symlink_to(folder / "etc/slurm.conf")
    (SYSTEM.parent / ".slurm-up").write_text(f"{folder}\n")
    return folder


def test_what_a_killed_test_left_is_cleared_away(up, daemon, tmp_path):
    owner = subprocess.Popen(["sleep", "60"])
    folder = left(tmp_path, owner.pid)
    daemons = [daemon(name, folder) for name in ("slurmctld", "slurmd", "munged")]
    assert f"another instance is up in {folder}: stop it first with" in refused(up(), tmp_path)
    assert all(process.poll() is None for process in daemons)
    owner.kill()
    owner.wait()
    assert f"stopping what was left behind in {folder}" in went_on(up(), tmp_path)
    assert [process.wait(10) for process in daemons] == [-9] * 3
    assert not folder.exists()
    assert not SYSTEM.is_symlink()


@pytest.mark.parametrize("daemons", [True, False])
def test_a_link_whose_folder_is_gone_is_cleared_away(up, daemon, tmp_path, daemons):
    """Someone has emptied the folder of temporary files."""
    folder = left(tmp_path, os.getpid())
    process = daemon("slurmctld", folder) if daemons else None
    shutil.rmtree(folder)
    went_on(up(), tmp_path)
    assert not SYSTEM.is_symlink()
    assert process is None or process.wait(10) == -9


def test_one_that_nobody_owns_is_cleared_away_when_its_daemons_are_gone(up, daemon, tmp_path):
    """Started by hand, and not stopped before the machine was."""
    folder = left(tmp_path, None)
    process = daemon("slurmctld", folder)
    assert "another instance is up" in refused(up(), tmp_path)
    process.kill()
    process.wait()
    went_on(up(), tmp_path)
    assert not folder.exists()


def test_daemons_that_are_zombies_do_not_count(up, daemon, tmp_path):
    """Process 1 of many containers fetches no exit status: ended daemons stay, without environment."""
    owner = subprocess.Popen(["sleep", "60"])
    folder = left(tmp_path, owner.pid)
    daemons = [daemon(name, folder) for name in ("slurmctld", "slurmd", "slurmdbd")]
    for process in (owner, *daemons):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert f"stopping what was left behind in {folder}" in went_on(up(), tmp_path)
    assert not folder.exists()
    owner.wait()
