import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from recscale.errors import Interrupted
from recscale.train import claim as module
from recscale.train.claim import NAME, claim

HOLD = """
import sys, time
from pathlib import Path
from recscale.train.claim import claim
claim(Path(sys.argv[1]), lambda: False, print)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def never():
    return False


def test_a_free_folder_is_held_and_released(tmp_path):
    held = claim(tmp_path, never, print)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert held.check()
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_done_run_is_not_held(tmp_path):
    assert claim(tmp_path, lambda: True, print) is None
    assert list(tmp_path.iterdir()) == []


def test_the_second_waits_while_the_first_lives_and_ends_when_it_is_done(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.01)
    looks, said = [], []

    def done():
        looks.append(1)
        return len(looks) > 20

    assert claim(tmp_path, done, said.append) is None
    assert len(looks) == 21
    assert said == [
        f"{tmp_path.name}: is being trained by process {holder.pid} on {os.uname().nodename}; waiting"
    ]


def test_who_waits_can_be_stopped(tmp_path, holder):
    with pytest.raises(Interrupted, match="stopped by SIGTERM while waiting"):
        claim(tmp_path, never, lambda _: None, lambda: "SIGTERM")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_claim_removed_by_hand_is_made_again(tmp_path):
    held = claim(tmp_path, never, print)
    (tmp_path / NAME).unlink()
    assert held.check()
    assert (tmp_path / NAME).exists()
    held.release()


def test_a_file_that_is_no_claim_stops_nobody(tmp_path, monkeypatch):
    """Odd bytes in its place: who holds the folder writes its own again, who comes waits a moment."""
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "ODD", 0.05)
    held = claim(tmp_path, never, print)
    (tmp_path / NAME).write_bytes(b"\xff\xfe\xfd")
    assert held.check()
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    held.release()
    for odd in (b"\xff\xfe\xfd", b"", b"[" * 100_000):
        (tmp_path / NAME).write_bytes(odd)
        said = []
        claim(tmp_path, never, said.append).release()
        assert said[-1].endswith(
            "takes over from running.json, which is no claim, which gives no sign of life"
        )


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(module.os, "link", link)
    held = claim(tmp_path, never, print)
    assert held.check()
    with pytest.raises(Interrupted):  # and it keeps a second one out
        claim(tmp_path, never, lambda _: None, lambda: "SIGTERM")
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_of_this_machine_is_replaced_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    said = []
    begun = time.monotonic()
    held = claim(tmp_path, never, said.append)
    assert time.monotonic() - begun < module.STALE / 4
    assert "no sign of life" in said[0]
    held.release()


def foreign(tmp_path):
    path = tmp_path / NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "machine": "another", "started": "1"}))
    return path


def test_a_holder_elsewhere_is_replaced_when_it_stops_beating_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "STALE", 0.5)
    path = foreign(tmp_path)
    end = time.monotonic() + 1.5

    def beat():
        while time.monotonic() < end:
            os.utime(path)
            time.sleep(0.05)

    thread = threading.Thread(target=beat)
    thread.start()
    held = claim(tmp_path, never, lambda _: None)
    assert time.monotonic() >= end + 0.3
    thread.join()
    held.release()


def test_of_many_that_wait_for_a_stale_claim_one_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "STALE", 0.5)
    monkeypatch.setattr(module, "BEAT", 0.05)
    foreign(tmp_path)
    held = []
    stop = time.monotonic() + 2

    def contend():
        found = claim(tmp_path, lambda: time.monotonic() > stop, lambda _: None)
        if found:
            held.append(found)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    held[0].release()
    assert list(tmp_path.iterdir()) == []


def test_the_holder_sees_that_it_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.02)
    held = claim(tmp_path, never, print)
    path = foreign(tmp_path)
    before = time.monotonic()
    while not held.lost:
        assert time.monotonic() - before < 10
        time.sleep(0.01)
    held.release()
    assert path.exists()  # it is the other's


def test_the_heartbeat_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.02)
    held = claim(tmp_path, never, print)
    first = (tmp_path / NAME).stat().st_mtime_ns
    before = time.monotonic()
    while (tmp_path / NAME).stat().st_mtime_ns == first:
        assert time.monotonic() - before < 10
        time.sleep(0.01)
    held.release()


def test_a_link_whose_answer_was_lost_is_held_at_once(tmp_path, monkeypatch):
    """NFS sends a request again that was done already: the second one finds the name taken, by itself."""

    def link(source, target, real=os.link):
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(module.os, "link", link)
    held = claim(tmp_path, never, print, lambda: "SIGTERM")
    assert held.check()
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_came_between_the_look_and_the_claim_is_not_trained_again(tmp_path, monkeypatch):
    """The holder finishes and lets go just after `done`; NFS may not show its point for a while."""
    path, point = foreign(tmp_path), tmp_path / "metrics.json"

    def create(target, content, real=module._create):
        if target == path and path.exists():  # the other ends now
            point.write_text("{}")
            path.unlink()
        return real(target, content)

    monkeypatch.setattr(module, "_create", create)
    assert claim(tmp_path, point.exists, print) is None
    assert list(tmp_path.iterdir()) == [point]


def test_a_point_of_a_dead_holder_is_not_trained_again(tmp_path, holder, monkeypatch):
    """It wrote its point, and died before it let go."""
    holder.kill()
    holder.wait()
    point = tmp_path / "metrics.json"

    def replace(*args, real=module._replace, **named):
        point.write_text("{}")
        return real(*args, **named)

    monkeypatch.setattr(module, "_replace", replace)
    assert claim(tmp_path, point.exists, print) is None
    assert list(tmp_path.iterdir()) == [point]


def test_a_claim_that_is_seen_and_not_found_can_be_waited_for_and_stopped(tmp_path, monkeypatch):
    """As of a network file system's cache of names."""
    looks = []
    monkeypatch.setattr(module, "POLL", 0.1)
    (tmp_path / NAME).symlink_to("nowhere")

    def stop():
        looks.append(1)
        return "SIGTERM" if len(looks) > 3 else None

    begun = time.monotonic()
    with pytest.raises(Interrupted):
        claim(tmp_path, never, print, stop)
    assert time.monotonic() - begun > 0.25  # it does not spin


def test_a_process_of_another_user_is_alive_though_it_is_hidden(tmp_path, holder, monkeypatch):
    """/proc mounted with hidepid shows a user's own processes only."""
    content = (tmp_path / NAME).read_text()
    monkeypatch.setattr(module, "_started", lambda _: None)

    def kill(pid, number):
        assert (pid, number) == (holder.pid, 0)
        raise PermissionError

    monkeypatch.setattr(module.os, "kill", kill)
    assert not module._gone(content)
    monkeypatch.setattr(module.os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError))
    assert module._gone(content)
