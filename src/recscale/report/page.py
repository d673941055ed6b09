"""The end of a study: one HTML file, and on the terminal what came out and where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from recscale.errors import InputError
from recscale.laws.result import Fit
from recscale.laws.words import summary
from recscale.study.study import Study


def report(study: Study, folder: Path, say: Callable[[str], None]) -> None:
    """Write results/<study>/report.html (Snakemake's report, works offline) and print the laws.

    `folder` is results/<study>. The file is left alone when it is newer than all that it shows. Raises
    InputError when the study is not finished.
    """
    laws = [folder / "laws" / f"{law}.json" for law in study.laws]
    figures = [folder / "figures" / f"{figure}.png" for figure in study.figures]
    figures += [folder / "figures" / f"{task}.png" for task in study.tasks]
    tables = [folder / f"{name}.csv" for name in ("points", *(["tasks"] if study.tasks else []))]
    shown = [*tables, *laws, *figures]
    for path in shown:
        if not path.exists():
            raise InputError(f"{path}: is missing; run snakemake --cores 2 --config study={study.name}")
    html = folder / "report.html"
    if not html.exists() or html.stat().st_mtime < max(path.stat().st_mtime for path in shown):
        part = html.with_name(f".part-{os.getpid()}.html")  # Snakemake takes the format from the ending
        command = [sys.executable, "-m", "snakemake", "--quiet", "--nolock"]
        command += ["--config", f"study={study.name}", "--report", str(part)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            whole = part.exists() and part.read_bytes().rstrip().endswith(b"</html>")
            if done.returncode or not whole:
                raise InputError(f"{html}: snakemake --report failed: {done.stderr.strip()[-400:]}")
            os.replace(part, html)
        finally:
            part.unlink(missing_ok=True)
    say(f"report   {html}")
    say(f"figures  {folder / 'figures'}/")
    for path in laws:
        say(f"law      {path}\n         {summary(Fit.read(path))}")
