"""What tables, figures, schemas and the planner must know of each problem, as plain values.

A task or a figure is named here once: a study file may then ask for it. Tests hold this against the
METRICS and TASKS of the problem's folder and against the figures that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """rises: more is better. law: whether a study may ask for a law of it."""

    rises: bool = True
    law: bool = True


@dataclass(frozen=True)
class Facts:
    """Of one problem.

    metrics: by name; `loss` among them. headline: the one that a training prints. shown: those of figures and
    forecasts. references: what needs no training, with the name of its line. tasks: of a trained run,
    with what each takes in passes over all users (docs/method.md). figures: of a study, but for those of its
    laws and tasks.
    """

    metrics: Mapping[str, Metric]
    headline: str
    shown: tuple[str, ...]
    references: Mapping[str, str]
    tasks: Mapping[str, float]
    figures: tuple[str, ...]


NEXT_ITEM = Facts(
    metrics={
        "loss": Metric(rises=False),
        "HR@5": Metric(),
        "HR@10": Metric(),
        "HR@50": Metric(),
        "NDCG@5": Metric(),
        "NDCG@10": Metric(),
        "NDCG@50": Metric(),
        "MRR": Metric(),
        "coverage@10": Metric(law=False),  # of all lists together, not of a user
    },
    headline="HR@10",
    shown=("HR@10", "NDCG@10"),
    references={"popularity": "item popularity", "markov": "first-order Markov"},
    tasks={"long_tail": 1, "cold_start": 6, "domains": 1, "robustness": 15, "trajectory": 10},
    figures=(
        "loss_vs_n", "loss_vs_d", "learning_curves", "loss_vs_epochs", "metrics_vs_n", "learning_rates",
        "exponents", "loss_to_metric",
    ),
)  # fmt: skip
PROBLEMS = {"next_item": NEXT_ITEM}
