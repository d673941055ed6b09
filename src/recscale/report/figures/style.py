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


def save(figure: Figure, table: pd.DataFrame, out: Path) -> None:
    """Write a figure to `out`, a .png path, with the .pdf and the table as .csv beside it."""
    FigureCanvasAgg(figure)
    with atomic(out) as part:
        figure.savefig(part, format="png")
    with atomic(out.with_suffix(".pdf")) as part:
        # Without its date the same tables give the same bytes.
        figure.savefig(part, format="pdf", metadata={"CreationDate": None})
    with atomic(out.with_suffix(".csv")) as part:
        table.to_csv(part, index=False)
