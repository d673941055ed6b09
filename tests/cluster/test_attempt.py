"""Attempts end as trainings do; what fails twice the same way is not tried again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from recscale.cluster import attempt
from runs import run_of

SPEC = run_of("x", 1, 8, 0.1).spec()
ENV = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def tried(out, code, say=lambda _: None):
    """The exit code of an attempt at a training that is this code."""
    command = [sys.executable, "-c", code]
    return attempt.attempt(command, SPEC, out, out.parent / "logs/a.log", 1, say)


def test_output_goes_to_both_and_the_code_is_the_trainings(out):
    said = []
    assert tried(out, "import sys; print('one'); print('two', file=sys.stderr)", said.append) == 0
    assert sorted(said) == ["one", "two"]
    assert sorted((out.parent / "logs/a.log").read_text().split()) == ["one", "two"]
    assert list(out.iterdir()) == []


def test_saved_is_no_failure(out):
    for _ in range(3):
        assert tried(out, "raise SystemExit(75)") == 75
    assert list(out.iterdir()) == []


def test_the_same_failure_twice_is_the_last(out):
    said = []
    assert tried(out, "print('step 17'); raise ValueError('no 17')") == 1
    assert not (out / "failed.json").exists()
    assert tried(out, "print('step 18'); raise ValueError('no 18')", said.append) == 1
    why = json.loads((out / "failed.json").read_text())
    assert why["reason"] == "ValueError: no 18"
    assert why["lines"][0] == "step 18"
    assert said[-1].endswith(f"it is not tried again until {out / 'failed.json'} is removed")
    (out.parent / "logs/a.log").unlink()
    assert tried(out, "open('ran', 'w')", said.append) == 1  # at once
    assert "failed the same way again: ValueError: no 18" in said[-1]
    # Snakemake removes the log before each attempt; the line above names it.
    assert (out.parent / "logs/a.log").read_text().splitlines() == [*why["lines"], said[-1]]
    (out / "failed.json").unlink()
    assert tried(out, "raise ValueError('no 19')") == 1
    assert not (out / "failed.json").exists()  # it is begun anew
    assert tried(out, "raise ValueError('no 20')") == 1
    assert (out / "failed.json").exists()
    (out / "failed.json").unlink()
    assert tried(out, "pass") == 0
    assert not (out / "failed.json").exists()


def test_another_failure_or_another_spec_is_tried(out):
    assert tried(out, "raise ValueError('no')") == 1
    assert tried(out, "raise KeyError('x')") == 1
    assert not (out / "failed.json").exists()
    assert tried(out, "raise KeyError('x')") == 1
    assert attempt.failed(out, SPEC)
    assert attempt.failed(out, run_of("x", 1, 16, 0.1).spec()) is None


@pytest.mark.parametrize(
    ("code", "lines", "reason"),
    [
        (2, ["recscale: a: b is wrong"], "a: b is wrong"),
        (1, ["x", "torch.OutOfMemoryError: CUDA"], "torch.OutOfMemoryError: CUDA"),
        (1, ["[rank1]: ValueError: no", "torch...errors.ChildFailedError: ", "====="], "ValueError: no"),
        (3, ["last words "], "exit code 3: last words"),
        (3, [], "exit code 3"),
        (-9, ["x"], "killed by SIGKILL, as it happens where memory runs out"),
        (-11, ["x"], "ended by SIGSEGV"),
    ],
)
def test_the_reason_is_the_last_error_that_was_said(code, lines, reason):
    assert attempt.reason(code, lines) == reason


BY_TORCHRUN = (
    "import os, sys, time; first = os.environ['RANK'] == '0'; first and time.sleep(60);"
    "print('before', flush=True); "
)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL, as it happens where memory runs out"),
        ("print('recscale: a: b is wrong', flush=True); sys.exit(2)", "a: b is wrong"),
        ("raise ValueError('no')", "ValueError: no"),
    ],
)
def test_the_reason_of_several_processes_is_the_one_of_the_first_that_failed(out, tmp_path, does, reason):
    """Not the end of torchrun's report, which is longer than what is kept and the same for all."""
    script = tmp_path / "script.py"
    script.write_text(BY_TORCHRUN + does)
    command = [sys.executable, str(script)]
    assert attempt.attempt(command, SPEC, out, tmp_path / "a.log", 2, lambda _: None) == 1
    (failure,) = json.loads((out / "failures.json").read_text())["failures"]
    assert failure["reason"] == reason
    assert "before" in failure["lines"]
    assert not any("torchrun" in line or "elastic" in line for line in failure["lines"])
    assert attempt.kills(out, SPEC, again=False) == (1 if "SIGKILL" in reason else 0)


@pytest.mark.parametrize("content", ["", "[]", '{"spec": 1}', "{}", "SPEC 3", 'SPEC [3, {"reason": 1}]'])
def test_notes_that_something_else_wrote_are_not_counted(out, content):
    start = json.dumps({"spec": SPEC, "failures": 0})[:-2]
    text = content.replace("SPEC ", start) + ("}" if "SPEC" in content else "")
    (out / "failures.json").write_text(text)
    assert attempt.kills(out, SPEC, again=True) == 0
    assert attempt.last_failure(out, SPEC) is None


def test_a_damaged_mark_of_failure_is_a_failure_that_says_so(out):
    (out / "failed.json").write_text('{"spec":')
    assert "failed.json: is not JSON" in attempt.text(attempt.failed(out, SPEC))
    said = []
    assert tried(out, "pass", said.append) == 1
    assert said[0].endswith(f"remove {out}/failed.json to try again")


def test_who_is_killed_gets_more_memory_four_times(out):
    kill = "import os; os.kill(os.getpid(), 9)"
    for number in range(4):
        assert attempt.kills(out, SPEC, again=False) == number
        assert not (out / "failed.json").exists()
        assert tried(out, kill) == 137
    assert attempt.failed(out, SPEC)


def test_an_attempt_that_ended_without_a_word_counts_as_killed(out):
    """SLURM kills all of a job at once, maybe before its training has begun."""
    code = (
        "import sys; from pathlib import Path; from recscale.cluster.attempt import attempt;"
        "kill = 'import os; os.kill(os.getppid(), 9)';"
        f"attempt([sys.executable, '-c', kill], {SPEC!r}, Path({str(out)!r}), Path({str(out)!r}, 'a.log'),"
        " 1, print)"
    )
    for number in range(2):
        assert attempt.kills(out, SPEC, again=False) == 0  # those may be alive
        assert attempt.kills(out, SPEC, again=True) == number
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert tried(out, "pass") == 0
    assert attempt.kills(out, SPEC, again=True) == 2  # until the point is there


SLOW = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit({code}));"
    "print('on', flush=True); time.sleep(60)"
)


def stopped(out, tmp_path, code, environment=ENV, saved="", kill=os.killpg):
    """Output and exit code of an attempt whose processes all get SIGTERM, as SLURM sends it."""
    script = (
        "import sys; from pathlib import Path; from recscale.cluster.attempt import attempt;"
        f"sys.exit(attempt([sys.executable, '-c', {SLOW.format(code=code)!r}], {SPEC!r}, Path({str(out)!r}),"
        f" Path({str(tmp_path / 'a.log')!r}), 1, lambda line: print(line, flush=True)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    assert process.stdout.readline() == "on\n"
    if saved:
        (out / saved).write_text("saved")
        os.utime(out / saved, (1e9, 1e9))
    kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    return said, process.returncode


def test_sigterm_ends_with_75_when_the_training_does(out, tmp_path):
    assert stopped(out, tmp_path, 75) == ("", 75)
    assert stopped(out, tmp_path, 4)[1] == 4
    assert (out / "failures.json").exists()


def test_a_signal_before_the_training_listens_is_no_failure(out, tmp_path, monkeypatch):
    """Preempted in its first second, twice: it would count as failed for good."""
    monkeypatch.setattr(sys.modules[__name__], "SLOW", "import time; print('on', flush=True); time.sleep(60)")
    assert stopped(out, tmp_path, 75) == ("", 75)
    assert list(out.iterdir()) == []


def test_sigterm_to_the_attempt_alone_reaches_the_training(out, tmp_path):
    """`kill` with the first number that ps shows."""
    assert stopped(out, tmp_path, 75, kill=os.kill) == ("", 75)


@pytest.fixture
def node(tmp_path):
    """A node with these commands: a job in the state of the file `state`, no leave to requeue it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "state").write_text("RUNNING|rule_train_wildcards_run\n")
    for name, does in (
        ("squeue", f"case $* in *%k*) cat {tmp_path}/state;; *) cut -d'|' -f1 {tmp_path}/state;; esac"),
        ("scontrol", f'echo "$@" >> {tmp_path}/asked; echo not allowed >&2; exit 1'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    return ENV | {"PATH": f"{folder}:{ENV['PATH']}", "SLURM_JOB_ID": "17"}


def test_a_job_that_saved_asks_to_be_requeued(out, tmp_path, node):
    """What SLURM then does is in tests/slurm."""
    said, code = stopped(out, tmp_path, 75, node, saved="last.safetensors")
    assert code == 75
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    assert said == "run: job 17 is not requeued: not allowed\n"


def test_what_is_saved_is_told_without_comparing_clocks(out, tmp_path, node):
    """The file server's may be behind the node's; inside a cooldown its own file is the one that is saved."""
    for name in ("last.safetensors", "branch.safetensors"):
        (tmp_path / "asked").unlink(missing_ok=True)
        (out / "last.safetensors").write_text("")
        stopped(out, tmp_path, 75, node, saved=name)
        assert (tmp_path / "asked").exists()


def test_a_job_that_was_cancelled_does_not_come_back(out, tmp_path, node):
    (tmp_path / "state").write_text("COMPLETING|rule_train_wildcards_run\n")
    assert stopped(out, tmp_path, 75, node, saved="last.safetensors") == ("", 75)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("comment", ["", "(null)", "my study", "rule_prepare"])
def test_a_job_of_something_else_is_not_requeued(out, tmp_path, node, comment):
    """Snakemake or a script in a job of the user: it has other runs, and would begin again unasked."""
    (tmp_path / "state").write_text(f"RUNNING|{comment}\n")
    assert stopped(out, tmp_path, 75, node, saved="last.safetensors") == ("", 75)
    assert not (tmp_path / "asked").exists()


def test_a_job_that_saved_nothing_is_not_requeued_for_ever(out, tmp_path, node):
    (out / "last.safetensors").write_text("")
    ahead = time.time() + 100  # by the clock of the file server
    os.utime(out / "last.safetensors", (ahead, ahead))
    assert stopped(out, tmp_path, 75, node) == ("", 75)
    assert not (tmp_path / "asked").exists()
