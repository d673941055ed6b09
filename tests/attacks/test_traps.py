"""Files that are meant to hurt whoever reads them: one line of error each, at once."""

import subprocess
import sys

import pytest

from recscale.cli.options import printable
from recscale.errors import InputError
from recscale.files import read_json
from recscale.study.schema import read_yaml

RUN = "run: {learning_rate: 0.01, epochs: %s}"
STUDY = f"title: t\ndataset: ml-1m\n{RUN}\nsizes: {{1x8: {{}}}}\ngrid: [{{sizes: all}}]\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]\n", "its aliases stand for more than"),
        ("a: " + "[" * 20_000, "is nested too deeply"),
        (STUDY % ("9" * 400), "a whole number of 400 digits"),
        (STUDY % ("9" * 5000), "a whole number of 5000 digits"),
        (STUDY % "\x1b[31m2", "is not YAML"),
    ],
)
def test_a_study_that_is_a_trap_is_one_line(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "recscale", "plan", str(path), "--device", "H100"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_a_few_aliases_are_read(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text("a: &a {b: 1}\nc: *a\n")
    assert read_yaml(path, {"type": "object"}) == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("results_dir", ["", "out/{study}"])
def test_a_results_folder_without_a_name_or_with_braces_is_refused(tmp_path, results_dir):
    path = tmp_path / "config.yaml"
    path.write_text(f"study: quick\nraw_dir: raw\nresults_dir: '{results_dir}'\n")
    with pytest.raises(InputError, match=r"results_dir: .* does not match"):
        read_yaml(path, "config")


def test_json_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "law.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"law.json: is nested too deeply; remove it"):
        read_json(tmp_path / "law.json")


def test_nothing_that_a_terminal_obeys_is_printed():
    text = "".join(map(chr, range(32))) + "\x7f\x9b é\n"
    shown = printable(text)
    assert [c for c in shown if not c.isprintable()] == ["\t", "\n", "\n"]
    assert r"\x1b" in shown
    assert r"\x9b" in shown
    assert "é" in shown
