"""Where a run is and what it has measured, and its log: what a continued run begins from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recscale import files


@dataclass
class Progress:
    """Where a run is and what it has measured: with weights and optimizer all that it goes on from."""

    leg: int = 0
    step: int = 0  # the next one, along the trunk
    epoch_loss: float = 0.0  # sums over the epoch in progress
    epoch_targets: int = 0
    epoch_seconds: float = 0.0
    positions: int = 0
    targets: int = 0
    training: float = 0.0  # seconds of the trunk's steps
    seconds: float = 0.0  # of training and evaluation, branches too
    saving: float = 0.0  # of writing checkpoints, not in `seconds`
    epochs: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    switched: dict[str, Any] | None = None
    diverged: dict[str, Any] | None = None
    changes: list[str] = field(default_factory=list)  # of the execution, in words

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch with the lowest valid loss, the first of equals."""
        return min(self.epochs, key=lambda epoch: epoch["valid"]["loss"], default=None)

    def where(self, steps: int) -> str:
        """Where it is, in words, with so many steps an epoch."""
        epoch, step = divmod(self.step, steps)
        return f"after epoch {epoch}" + (f", step {step} of {steps}" if step else "")

    def divergence(self) -> str:
        """How it diverged, in words."""
        at = self.diverged or {}
        return (
            f"epoch {at['epoch']}, step {at['step']}: the {at['split']} loss is not finite at learning rate "
            f"{at['learning_rate']:.2g}; the run ends as diverged"
        )

    def row(self, epoch: int, step: int, steps: int, epochs: int, end: int, rate: float) -> dict[str, Any]:
        """A row of the log after `step` of `steps` of an epoch; the run ends after `end` steps."""
        return {
            "leg": self.leg,
            "epoch": epoch,
            "epochs": epochs,
            "step": step,
            "steps": steps,
            "train_loss": self.epoch_loss / self.epoch_targets,
            "learning_rate": rate,
            "targets_per_second": self.epoch_targets / self.epoch_seconds,
            "seconds_left": (end - self.step) * self.epoch_seconds / step,
        }


def cut_log(path: Path, progress: Progress, steps: int) -> None:
    """Drop what was logged after the checkpoint (it will be logged again) and broken lines."""

    def kept(line: str) -> bool:
        try:
            row = json.loads(line)
            at = (row["epoch"] - 1) * steps + row["step"]
            return bool(row["leg"] < progress.leg or (row["leg"] == progress.leg and at <= progress.step))
        except (ValueError, KeyError, TypeError):
            return False

    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    with files.atomic(path) as part:
        part.write_text("".join(line + "\n" for line in lines if kept(line)))
