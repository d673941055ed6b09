"""Publishing and restoring finished points, on hand-made ones; with real runs in test_workflow."""

import json
import re

import pandas as pd
import pytest
from test_points import REFERENCES, RUNS, STUDY, point, write

from recscale.errors import InputError
from recscale.report import points, publish
from recscale.study.study import Law, Study, Task
from runs import run_of

FIRST, SECOND = RUNS
LAW = Law("law", "saturating_power", {"x": "N"}, "test_loss", {}, {})
WHOLE = Study("s", "t", "x", RUNS, {"law": LAW}, (), {"domains": Task("domains", {})})


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
    runs = {r.name(): r for r in (run_of("x", 1, 8, 0.2, epochs=2),)}
    other = Study("s", "t", "x", runs, {}, ())
    assert "0 points restored" in said(publish.restore, other, out, tmp_path / "new")
    with pytest.raises(InputError, match="no run of s has finished yet"):
        publish.publish(other, tmp_path / "nowhere", out, print)
    assert pd.read_csv(out / "points.csv")["run"].tolist() == [FIRST]  # nothing lost


def test_points_of_other_data_are_not_restored_or_published(folder, tmp_path):
    out, data = tmp_path / "published/s", tmp_path / "sequences.parquet"
    publish.publish(STUDY, folder, out, print, data)  # nothing is prepared here
    data.write_text("other data")
    with pytest.raises(
        InputError, match=r"sha256 00, .*sequences.parquet has [0-9a-f]{64}: remove its metrics"
    ):
        publish.restore(STUDY, out, tmp_path / "new", print, data)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="was trained on data of sha256 00"):
        publish.publish(STUDY, folder, out, print, data)


def test_points_that_leave_the_study_are_counted(folder, tmp_path):
    out = tmp_path / "published/s"
    write(folder / "runs", SECOND, point(RUNS[SECOND]))
    publish.publish(STUDY, folder, out, print)
    one = Study("s", "t", "x", {FIRST: RUNS[FIRST]}, {}, ())
    for call, places in ((publish.restore, (out, tmp_path / "new")), (publish.publish, (folder, out))):
        assert "points.jsonl: 1 of 2 points are of no run that s has now" in said(call, one, *places)


@pytest.mark.parametrize("line", ["{", "[1]", '{"run": "a"}', "7", '"\udcff"'])
def test_a_damaged_line_is_named(folder, tmp_path, line):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    with (out / "points.jsonl").open("a", errors="surrogateescape") as file:
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


def test_a_point_without_its_numbers_is_named(folder, tmp_path):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    cut = {key: value for key, value in point(RUNS[SECOND]).items() if key not in ("test", "epochs")}
    with (out / "points.jsonl").open("a") as file:
        file.write(json.dumps({"run": SECOND, **cut}) + "\n")
    with pytest.raises(InputError, match="line 2 is no point: it has no test, epochs"):
        publish.publish(STUDY, folder, out, print)


# --- laws, tasks and figures beside the points ---


@pytest.fixture
def whole(folder, monkeypatch):
    """A folder with all that WHOLE makes, but for figures, which are empty files."""
    monkeypatch.setattr(publish, "draw_all", drawn)
    write(folder / "runs", SECOND, point(RUNS[SECOND], 4.0))
    (folder / "laws").mkdir()
    (folder / "laws/law.json").write_text(json.dumps({"law": "law", "formula": "L(x) = E"}))
    (folder / "laws/laws.csv").write_text("laws.csv")
    tasks_of(folder, FIRST, SECOND)
    collected(folder)
    return folder


def drawn(study, source, out, say):
    (out / "domains.png").write_text("drawn")
    return ["domains"]


def tasks_of(folder, *runs):
    pd.DataFrame({"task": "domains", "run": runs}).to_csv(folder / "tasks.csv", index=False)


def collected(folder):
    table, _ = points.collect(STUDY, folder / "runs", folder / "references.json")
    table.to_csv(folder / "points.csv", index=False)


def there(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


ALL = ["curves.csv", "figures/domains.png", "laws/law.json", "laws/laws.csv", "points.csv", "points.jsonl"]
ALL += ["references.json", "tasks.csv"]


def test_what_nobody_here_can_make_again_stays_published(whole, tmp_path):
    """Elsewhere: points are restored, but no law is fitted yet, and tasks would need the weights."""
    out, new = tmp_path / "published/s", tmp_path / "elsewhere/s"
    publish.publish(WHOLE, whole, out, print)
    assert there(out) == ALL
    for made in ("nothing", "points"):
        assert "not published" not in said(publish.publish, WHOLE, new, out)
        assert there(out) == ALL, made
        publish.restore(WHOLE, out, new, print)
    write(new / "runs", FIRST, point(RUNS[FIRST], 3.9))  # another point: neither is of it
    found = said(publish.publish, WHOLE, new, out)
    assert "laws: not published, not fitted yet" in found
    assert "tasks: not published, not done with every run yet" in found
    assert not {"laws/law.json", "laws/laws.csv", "tasks.csv"} & set(there(out))


def test_publishing_cut_off_and_begun_again_keeps_nothing_of_other_points(whole, tmp_path, monkeypatch):
    out = tmp_path / "published/s"
    publish.publish(WHOLE, whole, out, print)
    write(whole / "runs", FIRST, point(RUNS[FIRST], 3.9))
    (whole / "tasks.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_laws", cut_off)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(WHOLE, whole, out, print)
    assert set(ALL) == set(there(out))
    found = said(publish.publish, WHOLE, whole, out)
    assert "laws: not published, fitted on other points" in found
    assert not {"laws/law.json", "tasks.csv"} & set(there(out))


def cut_off(*_):
    raise KeyboardInterrupt


def test_a_figure_that_cannot_be_drawn_takes_none_away(whole, tmp_path, monkeypatch):
    out = tmp_path / "published/s"
    publish.publish(WHOLE, whole, out, print)

    def damaged(*_):
        raise InputError("a table is damaged")

    monkeypatch.setattr(publish, "draw_all", damaged)
    with pytest.raises(InputError, match="a table is damaged"):
        publish.publish(WHOLE, whole, out, print)
    assert there(out) == ALL


def test_laws_and_figures_that_the_study_has_no_more_are_removed(whole, tmp_path, monkeypatch):
    out = tmp_path / "published/s"
    publish.publish(WHOLE, whole, out, print)
    monkeypatch.setattr(publish, "draw_all", lambda *_: [])
    assert "not published" not in said(publish.publish, STUDY, whole, out)
    assert there(out) == ["curves.csv", "points.csv", "points.jsonl", "references.json"]


def test_what_is_not_ours_stays(whole, tmp_path):
    """A note, a law and a picture of somebody; and points of a size that may come back."""
    out = tmp_path / "published/s"
    publish.publish(WHOLE, whole, out, print)
    own = [out / "figures/notes.md", out / "figures/mine.png", out / "laws/mine.json"]
    for path in own:
        path.write_text("{}")
    one = Study("s", "t", "x", {FIRST: RUNS[FIRST]}, {}, ())
    publish.publish(one, whole, out, print)
    assert all(path.exists() for path in own)
    assert not (out / "laws/law.json").exists()
    assert pd.read_csv(out / "points.csv")["run"].tolist() == [FIRST]
    assert "2 of 2 runs, 0 of them new" in said(publish.publish, STUDY, tmp_path / "nothing", out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"N": 7680}, "N: is 7680, a model of this spec has 768"),
        ({"test": {"loss": 4.0, "HR@10": 7.0}}, "test.HR@10: 7.0 is greater than the maximum of 1"),
        ({"test": {"loss": float("nan")}}, "a number is not finite"),
        ({"epochs": []}, "chosen_epoch: is 2 of 0"),
        ({"test": None}, "status: is finished; a finished run, and no other, is tested"),
        ({"test": {"loss": 3.9, "HR@10": 0.3}}, "is there twice, with other numbers"),
    ],
)
def test_a_point_that_no_run_can_have_is_refused(folder, tmp_path, change, message):
    out = tmp_path / "published/s"
    publish.publish(STUDY, folder, out, print)
    with (out / "points.jsonl").open("a") as file:
        file.write(json.dumps({"run": FIRST, **point(RUNS[FIRST], 4.5), **change}) + "\n")
    with pytest.raises(InputError, match=re.escape("points.jsonl: line 2: ") + ".*" + re.escape(message)):
        publish.restore(STUDY, out, tmp_path / "new", print)
    assert not (tmp_path / "new").exists()


def diverged(run):
    return point(run) | {"status": "diverged", "test": None, "chosen_epoch": None, "epochs": []}


def test_tasks_are_published_where_a_run_diverged_and_has_none(whole, tmp_path):
    write(whole / "runs", SECOND, diverged(RUNS[SECOND]))
    tasks_of(whole, FIRST)
    collected(whole)
    assert "not published" not in said(publish.publish, WHOLE, whole, tmp_path / "published/s")
    assert there(tmp_path / "published/s") == ALL


def test_a_task_whose_runs_all_diverged_has_no_figure(folder, tmp_path):
    tasks_of(folder)
    study = Study("s", "t", "x", RUNS, {}, (), WHOLE.tasks)
    assert "has not yet what domains show" in said(publish.draw_all, study, folder, tmp_path / "figures")


def test_a_study_whose_runs_all_diverged_is_published_and_read_again(folder, tmp_path):
    write(folder / "runs", FIRST, diverged(RUNS[FIRST]))
    study, out = Study("s", "t", "x", RUNS, {}, ("learning_curves",)), tmp_path / "published/s"
    about = json.dumps({"popularity": {"test": {"loss": 5.0}}, "markov": {"test": {"loss": 4.0}}})
    (folder / "references.json").write_text(about)
    publish.publish(study, folder, out, print)
    assert "figures/learning_curves.png" in there(out)


def test_a_damaged_table_of_tasks_is_one_line(whole, tmp_path):
    (whole / "tasks.csv").write_text("")
    with pytest.raises(InputError, match=r"tasks\.csv: is not CSV"):
        publish.publish(WHOLE, whole, tmp_path / "published/s", print)
