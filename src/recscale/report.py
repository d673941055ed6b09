"""The end of a study: one HTML file, and on the terminal what came out and where it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from recscale.errors import InputError
from recscale.laws import Fit, summary
from recscale.schema import read_yaml
from recscale.study import load


def report(name: str | None, config: Path, say: Callable[[str], None]) -> None:
    """Write results/<study>/report.html (Snakemake's report, works offline) and print the laws.

    Without a name it is the study of the config file. The file is left alone when it is newer than
    all that it shows. Raises InputError when the study is not finished.
    """
    settings = read_yaml(config, "config")
    name = name or str(settings["study"])
    study = load(config.parent / "studies" / f"{name}.yaml")
    folder = Path(settings["results_dir"]) / name
    laws = [folder / "laws" / f"{law}.json" for law in study.laws]
    figures = [folder / "figures" / f"{figure}.png" for figure in study.figures]
    figures += [folder / "figures" / f"{task}.png" for task in study.tasks]
    tables = [folder / f"{name}.csv" for name in ("points", *(["tasks"] if study.tasks else []))]
    shown = [*tables, *laws, *figures]
    for path in shown:
        if not path.exists():
            raise InputError(f"{path}: is missing; run snakemake --cores 2 --config study={name}")
    html = folder / "report.html"
    if not html.exists() or html.stat().st_mtime < max(path.stat().st_mtime for path in shown):
        command = [sys.executable, "-m", "snakemake", "--quiet", "--nolock"]
        command += ["--config", f"study={name}", "--report", str(html)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{html}: snakemake --report failed: {done.stderr.strip()[-400:]}")
    say(f"report   {html}")
    say(f"figures  {folder / 'figures'}/")
    for path in laws:
        say(f"law      {path}\n         {summary(Fit.read(path))}")
