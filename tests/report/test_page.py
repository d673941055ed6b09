import subprocess
from pathlib import Path

import pytest

from recscale.errors import InputError
from recscale.report.page import report
from recscale.study.study import Study


def test_an_unfinished_study_says_what_is_missing_and_what_to_run(tmp_path):
    study = Study("s", "t", "x", {}, {}, (), ())
    with pytest.raises(InputError, match=r"points\.csv: is missing; run snakemake .*study=s"):
        report(study, tmp_path / "results/s", print)


def test_a_report_that_was_cut_off_is_none(tmp_path, monkeypatch):
    """A full disk, a limit of file size: what is there is whole, or nothing."""
    study = Study("s", "t", "x", {}, {}, ())
    (tmp_path / "points.csv").write_text("run\n")

    def cut(command, **_):
        Path(command[-1]).write_text("<html> <!-- and no more")
        return subprocess.CompletedProcess(command, 0, "", "no space")

    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(InputError, match=r"report.html: snakemake --report failed: no space"):
        report(study, tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["points.csv"]
