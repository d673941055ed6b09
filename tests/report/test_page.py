import pytest

from recscale.errors import InputError
from recscale.report.page import report
from recscale.study.study import Study


def test_an_unfinished_study_says_what_is_missing_and_what_to_run(tmp_path):
    study = Study("s", "t", "x", {}, {}, (), ())
    with pytest.raises(InputError, match=r"points\.csv: is missing; run snakemake .*study=s"):
        report(study, tmp_path / "results/s", print)
