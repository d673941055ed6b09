"""The state of a run, from its folder as trainings leave it and from SLURM's queue."""

import json
import os
import time
from pathlib import Path

from test_points import RUNS, STUDY, point, write

from recscale.cluster import attempt
from recscale.cluster.slurm import Job, command, named
from recscale.cluster.status import status
from recscale.train import claim
from recscale.train.claim import STALE

FIRST, SECOND = RUNS


def row(folder, queue=None, now=None):
    return status(STUDY, folder, queue, now).set_index("run").loc[SECOND]


def begun(folder):
    (folder / SECOND).mkdir()
    line = {"epoch": 2, "step": 5, "steps": 10, "targets_per_second": 1234.5, "seconds_left": 90.0}
    (folder / SECOND / "log.jsonl").write_text(json.dumps(line) + "\n")
    (folder / SECOND / claim.NAME).write_text("{}")


def test_done_running_and_stopped(tmp_path):
    assert status(STUDY, tmp_path)["state"].to_list() == ["missing", "missing"]
    write(tmp_path, FIRST, point(RUNS[FIRST]))
    begun(tmp_path)
    table = status(STUDY, tmp_path)
    assert table["state"].to_list() == ["done", "running"]
    assert table["epoch"].to_list() == ["2/2", "2/2"]
    assert table["detail"][1] == "step 5/10, 1,234 targets/s, 1.5 minutes left"
    assert row(tmp_path, now=time.time() + STALE + 1).state == "stopped"
    (tmp_path / SECOND / claim.NAME).unlink()  # as a training that was asked to stop leaves it
    assert row(tmp_path).state == "stopped"


def test_a_claim_alone_is_a_run_that_starts(tmp_path):
    (tmp_path / SECOND).mkdir()
    (tmp_path / SECOND / claim.NAME).write_text("{}")
    assert row(tmp_path).state == "running"


def test_the_queue_tells_pending_from_missing_and_from_stopped(tmp_path):
    waiting, there = {SECOND: Job(17, "PENDING")}, {SECOND: Job(17, "RUNNING")}
    assert row(tmp_path, waiting)[["state", "job"]].to_list() == ["pending", 17]
    assert row(tmp_path, there).state == "running"
    begun(tmp_path)
    assert row(tmp_path, waiting).state == "running"  # another job trains it
    old = time.time() - STALE - 1
    for path in (tmp_path / SECOND).iterdir():
        os.utime(path, (old, old))
    assert row(tmp_path, waiting).state == "pending"


def test_a_failed_run_says_why_and_where_its_log_is(tmp_path):
    begun(tmp_path)
    spec, out = RUNS[SECOND].spec(), tmp_path / SECOND
    (out / claim.NAME).unlink()
    attempt.note(out, spec, 1, ["ValueError: no"], tmp_path / "a.log", print)
    assert row(tmp_path).state == "stopped"
    assert row(tmp_path).detail == f"last: ValueError: no; log: {tmp_path}/a.log"
    attempt.note(out, spec, 1, ["ValueError: no"], tmp_path / "a.log", print)
    assert row(tmp_path).state == "failed"
    assert row(tmp_path).detail == f"ValueError: no; log: {tmp_path}/a.log"


def test_jobs_are_found_by_folder_and_comment(tmp_path):
    """As squeue -o '%i|%T|%Z|%k' prints them."""
    lines = [
        f"7|RUNNING|{tmp_path}|rule_train_wildcards_1x8-e2",
        f"12|PENDING|{tmp_path}|rule_train_wildcards_1x8-e2",
        f"9|RUNNING|{tmp_path}|rule_train_wildcards_1x8-e20",
        f"10|RUNNING|{tmp_path}|rule_references",
        "11|RUNNING|/elsewhere|rule_train_wildcards_1x16-e2",
        f"13|RUNNING|{tmp_path}|(null)",
    ]
    found = named("\n".join(lines), tmp_path)
    assert found == {"1x8-e2": Job(12, "PENDING"), "1x8-e20": Job(9, "RUNNING")}


def test_damaged_files_are_told_and_do_not_end_the_list(tmp_path):
    """Half-written, of something else, or not text at all."""
    begun(tmp_path)
    folder = tmp_path / SECOND
    for text in (b"}\n", b"[1]}\n", b"\x00\x00\xff}\n", b'{"epoch": 1}\n', b'{"epoch": 1, "step": "}\n', b""):
        (folder / "log.jsonl").write_bytes(text)
        assert row(tmp_path)[["state", "epoch"]].to_list() == ["running", "1/2"]
    begun_again = {"epoch": 2, "step": 5, "steps": 10, "targets_per_second": 1.0}
    (folder / "log.jsonl").write_text(json.dumps(begun_again) + '\n{"epoch": 2, "st')
    assert row(tmp_path).epoch == "2/2"
    (folder / "failed.json").write_text("{")
    assert row(tmp_path).state == "failed"
    assert "failed.json: is not JSON" in row(tmp_path).detail


def test_a_claim_that_goes_while_it_is_looked_at(tmp_path, monkeypatch):
    """A training may end at any moment."""
    begun(tmp_path)
    (tmp_path / SECOND / claim.NAME).unlink()
    (tmp_path / SECOND / "log.jsonl").unlink()
    monkeypatch.setattr(Path, "exists", lambda path: path.name in (claim.NAME, "log.jsonl"))
    assert row(tmp_path).state == "missing"


def test_what_is_no_job_is_passed_over(tmp_path):
    """Warnings, another version's words, and text that is not UTF-8."""
    said = f"slurm_load_jobs: a warning\n\n|\n7|RUNNING|{tmp_path}|rule_train_wildcards_a\n12_[1-3]|PENDING"
    assert named(said, tmp_path) == {"a": Job(7, "RUNNING")}
    assert command("printf", r"7|RUNNING|/caf\351|rule")[0]


def test_a_folder_that_is_reached_by_a_link_is_the_same(tmp_path):
    """Home folders often are links; SLURM names either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    line = "7|RUNNING|{}|rule_train_wildcards_a"
    for one, other in (("link", "real"), ("real", "link")):
        assert named(line.format(tmp_path / one), tmp_path / other) == {"a": Job(7, "RUNNING")}
