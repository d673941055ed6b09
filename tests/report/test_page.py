import pytest
import yaml

from recscale.errors import InputError
from recscale.report.page import report


def test_an_unfinished_study_says_what_is_missing_and_what_to_run(tmp_path):
    (tmp_path / "studies").mkdir()
    study = {"title": "t", "dataset": "x", "sizes": {"1x8": {"learning_rate": 0.1}}, "grid": [{}]}
    (tmp_path / "studies/s.yaml").write_text(yaml.safe_dump(study))
    config = {"study": "s", "raw_dir": "raw", "results_dir": str(tmp_path / "results")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"points\.csv: is missing; run snakemake .*study=s"):
        report("s", tmp_path / "config.yaml", print)
