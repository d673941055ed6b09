"""The laws that a study file asks for, fitted to the points of its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from recscale.errors import InputError
from recscale.files import atomic, read_table, write_json
from recscale.laws.fit import fit_law
from recscale.laws.forms import FORMS
from recscale.laws.result import Fit
from recscale.laws.words import summary
from recscale.study.study import Law, Study, select


def fit_one(law: Law, study: Study, points: pd.DataFrame) -> Fit:
    """One law of the study, by its runs in the table of points. Raises InputError on what no fit can take."""
    chosen = points[points["run"].isin(select(law, study.runs))]
    x = {axis: chosen[column].to_numpy(float) for axis, column in law.x.items()}
    try:
        return fit_law(
            x, chosen[law.y].to_numpy(float), law=law.name, form=FORMS[law.form], x_name=law.columns,
            hold_out=law.hold_out,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"laws.{law.name}: {error}") from error


def fit(study: Study, points_file: Path, out: Path, say: Callable[[str], None]) -> None:
    """Fit every law, write <law>.json each and laws.csv to `out`, and say each in a line."""
    needed = {column for law in study.laws.values() for column in (*law.x.values(), law.y)}
    points, rows = read_table(points_file, "run", *sorted(needed)), []
    for law in study.laws.values():
        found = fit_one(law, study, points)
        write_json(out / f"{law.name}.json", found.to_json())
        row = {"law": law.name, "form": law.form, "x": law.columns, "y": law.y, "status": found.status}
        rows.append(row | {"result": summary(found)})
        say(summary(found))
    with atomic(out / "laws.csv") as part:
        pd.DataFrame(rows, columns=["law", "form", "x", "y", "status", "result"]).to_csv(part, index=False)
