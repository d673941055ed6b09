import json

import pytest

from recscale.cluster.status import status
from recscale.errors import InputError
from recscale.report.points import collect
from recscale.study.study import Study
from runs import run_of

RUNS = {r.name(): r for r in (run_of("x", 1, 8, 0.1, epochs=2), run_of("x", 1, 16, 0.1, epochs=2))}
STUDY = Study("s", "t", "x", RUNS, {}, ())
REFERENCES = {"popularity": {"test": {"loss": 5.0}}, "markov": {}}


@pytest.fixture
def references(tmp_path):
    path = tmp_path / "references.json"
    path.write_text(json.dumps(REFERENCES))
    return path


def point(run, test_loss=4.0):
    epochs = [
        {"epoch": e, "train_loss": 6.0 - e, "valid": {"loss": 5.5 - e, "HR@10": 0.1 * e}} for e in (1, 2)
    ]
    made = {"spec": json.loads(run.spec()), "status": "finished", "epochs": epochs}
    made |= {
        "N": 12 * run.shape.d_model**2,
        "N_total": run.shape.n_total(3, run.windows.max_len),
        "D": 10,
        "D_seen": 20,
        "C": 5,
        "n_items": 3,
    }
    made |= {"chosen_epoch": 2, "test": {"loss": test_loss, "HR@10": 0.3}, "tests": []}
    made |= {"seconds": 1.0, "targets_per_second": 2.0, "peak_memory_bytes": 3, "device": "cpu"}
    return made | {"precision": "float32", "threads": 1, "commit": None, "data_sha256": "00"}


def write(folder, name, content):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "metrics.json").write_text(json.dumps(content))


def test_one_row_a_run_and_one_a_run_and_epoch(tmp_path, references):
    for (name, run), loss in zip(RUNS.items(), (5.5, 4.0), strict=True):
        write(tmp_path, name, point(run, loss))
    points, curves = collect(STUDY, tmp_path, references)
    assert points["run"].to_list() == list(RUNS)
    assert points["N"].to_list() == [768, 3072]
    assert points["test_loss"].to_list() == [5.5, 4.0]
    assert points["HR@10"].to_list() == [0.3, 0.3]
    assert points["valid_loss"].to_list() == [3.5, 3.5]  # of the chosen epoch
    assert points["beats_popularity"].to_list() == [False, True]
    assert len(curves) == 4
    assert curves["valid_HR@10"].to_list() == [0.1, 0.2, 0.1, 0.2]
    assert curves["finished"].to_list() == [False, True, False, True]
    assert curves["test_loss"].isna().all()


def test_tested_epochs_are_in_the_curves(tmp_path, references):
    """Of a cosine in the row of their epoch; cooled-down branches in rows of their own."""
    tested = [
        {"epoch": e, "finished": True, "valid": {"loss": 3.0}, "test": {"loss": 3.0 + e}} for e in (1, 2)
    ]
    for schedule in ("cosine", "constant"):
        run = run_of("x", 1, 8, 0.01, epochs=2, test_epochs=(1, 2), schedule=schedule)
        study = Study("s", "t", "x", {"only": run}, {}, ())
        write(tmp_path / schedule, "only", point(run) | {"tests": tested})
        points, curves = collect(study, tmp_path / schedule, references)
        assert points["test_epochs"].to_list() == ["1.2"]
        branch = [] if schedule == "cosine" else [(1, True, 4.0)]
        first = 4.0 if schedule == "cosine" else None
        rows = (
            curves[["epoch", "finished", "test_loss"]].astype(object).where(curves["test_loss"].notna(), None)
        )
        rows[["epoch", "finished"]] = curves[["epoch", "finished"]]
        assert [tuple(row) for row in rows.to_numpy()] == [(1, False, first), (2, True, 5.0), *branch]


def test_d_input_is_a_column_and_blank_for_points_of_before(tmp_path, references):
    for (name, run), more in zip(RUNS.items(), ({"D_input": 45}, {}), strict=True):
        write(tmp_path, name, point(run) | more)
    points, curves = collect(STUDY, tmp_path, references)
    assert points["D_input"].to_list()[0] == 45
    assert points["D_input"].isna().to_list() == [False, True]
    assert set(points["data_axis"]) == set(curves["data_axis"]) == {"users"}


def test_a_diverged_run_is_a_row_without_losses(tmp_path, references):
    for name, run in RUNS.items():
        write(tmp_path, name, point(run))
    name, run = next(iter(RUNS.items()))
    write(tmp_path, name, point(run) | {"status": "diverged", "test": None, "chosen_epoch": None})
    points, _ = collect(STUDY, tmp_path, references)
    assert points["status"].to_list() == ["diverged", "finished"]
    assert points["test_loss"].isna().to_list() == [True, False]
    assert points["beats_popularity"].to_list() == [False, True]


def test_a_point_of_another_spec_is_refused(tmp_path, references):
    for name, run in RUNS.items():
        write(tmp_path, name, point(run.but(dropout=0.5)))
    with pytest.raises(InputError, match=r"metrics\.json: was made by another spec.*0\.5"):
        collect(STUDY, tmp_path, references)


def test_a_missing_or_broken_point_is_named(tmp_path, references):
    with pytest.raises(InputError, match=r"metrics\.json: there is no such file"):
        collect(STUDY, tmp_path, references)
    folder = tmp_path / next(iter(RUNS))
    folder.mkdir()
    (folder / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: is not JSON"):
        collect(STUDY, tmp_path, references)


def test_a_damaged_point_is_shown_and_named(tmp_path, references):
    for name, run in RUNS.items():
        write(tmp_path, name, point(run))
    first = next(iter(RUNS))
    for damage in ({}, [], None, {"spec": {"bogus": 1}}):
        write(tmp_path, first, damage)
        assert status(STUDY, tmp_path)["state"].to_list() == ["damaged", "done"]
        with pytest.raises(InputError, match=r"metrics\.json: has no .*remove it"):
            collect(STUDY, tmp_path, references)


def test_runs_on_different_data_are_not_one_table(tmp_path, references):
    for (name, run), data in zip(RUNS.items(), ("00", "11"), strict=True):
        write(tmp_path, name, point(run) | {"data_sha256": data})
    with pytest.raises(InputError, match="were trained on different data"):
        collect(STUDY, tmp_path, references)
