"""How every figure looks, and how it is written: PNG, PDF and the CSV of what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recscale.files import atomic

STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 9, "axes.titlesize": 9, "legend.title_fontsize": 9,
    "legend.fontsize": 8, "legend.frameon": False, "legend.handlelength": 1.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
    "lines.linewidth": 1.2, "savefig.dpi": 300, "pdf.fonttype": 42,
}  # fmt: skip
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # one a law


DATES = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save(figure: Figure, table: pd.DataFrame, out: Path) -> None:
    """Write a figure to `out`, .png (with the .pdf beside it), .pdf or .svg, and the table as .csv."""
    FigureCanvasAgg(figure)
    kinds = [".png", ".pdf"] if out.suffix == ".png" else [out.suffix]
    for kind in kinds:
        with atomic(out.with_suffix(kind)) as part:
            # Without its date the same tables give the same bytes.
            figure.savefig(part, format=kind[1:], metadata=DATES.get(kind))
    with atomic(out.with_suffix(".csv")) as part:
        table.to_csv(part, index=False)
