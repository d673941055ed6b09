"""One writer a run folder: a claim file with a heartbeat, on any file system, without locks.

The holder touches `running.json` each minute. Whoever comes second waits: until the run is done, or
until the claim is stale, and then takes it over. Clocks of two hosts are never compared: a claim is
stale when it has not changed for STALE seconds of the watcher's own clock, or at once when its
process was on this machine and is gone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recscale.errors import Interrupted

NAME = "running.json"
BEAT = 60.0  # seconds between two signs of life
STALE = 200.0  # seconds without one: three beats, and a minute for caches of network file systems
POLL = 1.0  # seconds
ODD = 5.0  # seconds after which a file that is no claim is nobody's; a new one may be empty for a moment
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # file systems without hard links


class Claim:
    """A held run folder. `lost` turns true when another process has taken it over."""

    def __init__(self, path: Path, content: str) -> None:
        self.path, self.lost = path, False
        self._content, self._end = content, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> bool:
        """Whether the claim is still this process's; one that was removed or spoilt is made again."""
        if self.lost:
            return False
        found = _read(self.path)
        if found is not None and not _parse(found):  # nobody's claim: no process writes such a one
            _put(self.path, self._content)
        elif found != self._content:
            self.lost = not _create(self.path, self._content)
        return not self.lost

    def _beat(self) -> None:
        alive = time.monotonic()
        while not self._end.wait(BEAT):
            try:
                if not self.check():
                    return
                os.utime(self.path)
                alive = time.monotonic()
            except OSError:  # a file system that is away for a while; others take over after STALE
                self.lost = self.lost or time.monotonic() - alive > STALE

    def release(self) -> None:
        """End the heartbeat and remove the file, if it is still this process's."""
        self._end.set()
        self._thread.join()
        if self.check():
            self.path.unlink()


def claim(
    folder: Path,
    done: Callable[[], bool],
    say: Callable[[str], None],
    stop: Callable[[], str | None] = lambda: None,
) -> Claim | None:
    """Hold `folder`, after waiting for a living holder; None when `done()` came true meanwhile.

    Raises Interrupted when `stop` gives a reason while it waits.
    """
    path = folder / NAME
    content = json.dumps(_self())
    watched, since, told = None, time.monotonic(), False
    while not done():
        if _create(path, content):
            return _unless(done, Claim(path, content))
        found = _read(path)
        sign = (found, _touched(path))
        if sign != watched:
            watched, since = sign, time.monotonic()
        silent = time.monotonic() - since
        over = found is not None and (_gone(found) or silent > STALE or (not _parse(found) and silent > ODD))
        if over and _replace(path, found or "", content, by_force=silent > 2 * STALE):
            say(f"{folder.name}: takes over from {_who(found or '')}, which gives no sign of life")
            return _unless(done, Claim(path, content))
        reason = stop()
        if reason:
            raise Interrupted(f"{folder.name}: stopped by {reason} while waiting; nothing was written")
        if found is not None and not over and not told:
            say(f"{folder.name}: is being trained by {_who(found)}; waiting")
            told = True
        time.sleep(POLL)
    return None


def _unless(done: Callable[[], bool], held: Claim) -> Claim | None:
    """The claim; released where the run was finished after the last look, or where NFS had not shown it yet.

    Making a file in the folder has renewed what this machine knows of the folder.
    """
    finished = True
    try:
        finished = done()
    finally:
        if finished:
            held.release()
    return None if finished else held


def _create(path: Path, content: str) -> bool:
    """Make the claim file, whole and only if there is none: a link is atomic on NFS too."""
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        own.write_text(content)
        os.link(own, path)
    except FileExistsError:
        return _read(path) == content  # NFS asks again when an answer is lost, and finds its own link
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with path.open("x") as file:
                file.write(content)
        except FileExistsError:
            return False
    finally:
        own.unlink(missing_ok=True)
    return True


def _replace(path: Path, stale: str, content: str, by_force: bool) -> bool:
    """Put `content` in the place of a stale claim; of several that try, one succeeds.

    Who makes the token of this stale claim may replace it, and nobody else. A token left behind by a
    process that died between the two is removed `by_force`.
    """
    token = path.with_name(f".{path.name}.{hashlib.sha256(stale.encode()).hexdigest()[:16]}")
    if by_force:
        token.unlink(missing_ok=True)
    if not _create(token, content):
        return False
    try:
        if _read(path) != stale:
            return False
        _put(path, content)
    finally:
        token.unlink(missing_ok=True)
    time.sleep(POLL / 10)  # if another forced its way in at the same moment, one of the two sees it
    return _read(path) == content


def _put(path: Path, content: str) -> None:
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    own.write_text(content)
    os.replace(own, path)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:  # NFS: removed on another host between opening and reading
        if error.errno != errno.ESTALE:
            raise
        return None


def _touched(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _self() -> dict[str, Any]:
    """Who holds the claim; `machine` and `started` tell whether its process can be looked up."""
    return {
        "host": platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "machine": _machine(),
        "id": uuid.uuid4().hex,
    }


def _who(content: str) -> str:
    holder = _parse(content)
    if not holder:
        return f"{NAME}, which is no claim"
    job = f", job {holder['job_id']}" if holder.get("job_id") else ""
    return f"process {holder.get('pid')} on {holder.get('host')}{job}"


def _parse(content: str) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _gone(content: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    holder = _parse(content)
    here = holder.get("machine") is not None and holder.get("machine") == _machine()
    pid = holder.get("pid")
    return here and _started(pid) != holder.get("started") and not _hidden(pid)


def _hidden(pid: Any) -> bool:
    """Whether a process is there that /proc does not show: another user's, under hidepid."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, TypeError, OverflowError):
        pass
    return False


def _machine() -> str | None:
    """This boot of this machine and this name space of processes; None where it is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: Any) -> str | None:
    """Start time of a process in ticks since boot: a process id may be used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
