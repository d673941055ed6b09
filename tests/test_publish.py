"""Publishing and restoring finished points, on hand-made ones; with real runs in test_workflow."""

import json

import pandas as pd
import pytest

from recscale import points, publish
from recscale.errors import InputError
from recscale.study import Run, Study
from test_points import REFERENCES, RUNS, STUDY, point, write

FIRST, SECOND = RUNS


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "results/s"
    write(made / "runs", FIRST, point(RUNS[FIRST], 4.5))
    (made / "references.json").write_text(json.dumps(REFERENCES))
    return made


def said(call, *args):
    lines: list[str] = []
    call(*args, lines.append)
    return "\n".join(lines)


def test_runs_are_published_as_they_finish_and_stay_when_their_folder_is_gone(folder, tmp_path):
    out = tmp_path / "published/s"
    assert "1 of 2 runs, 1 of them new" in said(publish.publish, STUDY, folder, out)
    (folder / "runs" / FIRST / "metrics.json").unlink()  # another machine
    write(folder / "runs", SECOND, point(RUNS[SECOND], 4.0))
    assert "2 of 2 runs, 1 of them new" in said(publish.publish, STUDY, folder, out)
    table = pd.read_csv(out / "points.csv")
    assert table[["run", "test_loss"]].to_numpy().tolist() == [[FIRST, 4.5], [SECOND, 4.0]]
    assert len(pd.read_csv(out / "curves.csv")) == 4


def test_a_run_done_again_replaces_the_published_one(folder, tmp_path):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    write(folder / "runs", FIRST, point(RUNS[FIRST], 3.9))
    publish.publish(STUDY, folder, out, print)
    assert pd.read_csv(out / "points.csv")["test_loss"].tolist() == [3.9]


def test_restored_points_are_those_that_were_published(folder, tmp_path):
    out, new = tmp_path / "published/s", tmp_path / "elsewhere/s"
    write(folder / "runs", SECOND, point(RUNS[SECOND]))
    publish.publish(STUDY, folder, out, print)
    write(new / "runs", SECOND, point(RUNS[SECOND], 9.0))  # what is there is not touched
    assert "1 points restored, 1 were there" in said(publish.restore, STUDY, out, new)
    for name, loss in ((FIRST, 4.5), (SECOND, 9.0)):
        again = json.loads((new / "runs" / name / "metrics.json").read_text())
        assert again == point(RUNS[name], loss)
    (new / "references.json").write_text(json.dumps(REFERENCES))
    table, _ = points.collect(STUDY, new / "runs", new / "references.json")
    assert table["test_loss"].tolist() == [4.5, 9.0]


def test_a_point_of_another_spec_is_neither_published_again_nor_restored(folder, tmp_path):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    runs = {r.name(): r for r in (Run("x", 1, 8, 0.2, epochs=2),)}
    other = Study("s", "t", "x", runs, {}, ())
    assert "0 points restored" in said(publish.restore, other, out, tmp_path / "new")
    with pytest.raises(InputError, match="no run of s has finished yet"):
        publish.publish(other, tmp_path / "nowhere", out, print)
    assert pd.read_csv(out / "points.csv")["run"].tolist() == [FIRST]  # nothing lost


@pytest.mark.parametrize("line", ["{", "[1]", '{"run": "a"}', "7"])
def test_a_damaged_line_is_named(folder, tmp_path, line):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    with (out / "points.jsonl").open("a") as file:
        file.write(line + "\n")
    for call in (publish.restore, publish.publish):
        places = (out, folder) if call is publish.restore else (folder, out)
        with pytest.raises(InputError, match=r"points\.jsonl: line 2 is no point"):
            call(STUDY, *places, print)


def test_nothing_published_is_one_line(tmp_path):
    with pytest.raises(
        InputError, match=r"points\.jsonl: there is no such file; recscale publish s makes it"
    ):
        publish.restore(STUDY, tmp_path, tmp_path / "s", print)
