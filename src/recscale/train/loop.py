"""The training of one run: legs of steps, an evaluation after each epoch, a checkpoint when due.

Read Trainer.train and downwards. Everything random is seeded by its own step, so a run that goes on
from a checkpoint at any step gives the numbers of one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from recscale import files
from recscale.errors import InputError, Interrupted
from recscale.study.execution import Execution
from recscale.study.folder import BRANCH, LAST, clean
from recscale.study.run import Run
from recscale.study.schedule import Leg, factor, legs
from recscale.train import checkpoint
from recscale.train.point import point
from recscale.train.problem import Problem
from recscale.train.processes import Processes
from recscale.train.progress import Progress, cut_log

LOG_EVERY = 100  # steps
SAVE_EVERY = 60.0  # seconds between checkpoints inside an epoch, at least
SAVE_SHARE = 0.02  # of a run's time may go into writing them
NOTHING, SAVE, STOP, TAKEN = range(4)  # what a process may wish after a step; the largest wins
ANOTHER = "another process"  # as a reason to stop: it has taken the run over


class Diverged(Exception):
    """The loss is not finite."""


class Trainer:
    """One run in training. `stop` says who wants it to stop, or None."""

    def __init__(
        self,
        run: Run,
        problem: Problem,
        out: Path,
        how: Execution,
        processes: Processes,
        say: Callable[[str], None],
        stop: Callable[[], str | None],
    ) -> None:
        self.run, self.problem, self.out = run, problem, out
        self.how, self.processes, self.say, self.stop = how, processes, say, stop
        self.steps = math.ceil(len(problem) / run.course.batch_size)  # an epoch
        self.legs = legs(run.course, self.steps)
        self.progress = Progress()
        problem.build(how, processes)
        self.model, self.objective = problem.model, problem.objective
        if processes.world > 1:
            self.objective = DistributedDataParallel(
                self.objective, gradient_as_bucket_view=True, broadcast_buffers=False
            )
        self.optimizer = self._optimizer()
        self.best: checkpoint.Tensors = {}  # weights of progress.best, on the host
        self._best_on_disk: int | None = None
        self._anew = True  # not continued from a checkpoint
        # Summed loss, targets and positions of the steps since the last look.
        self._losses: list[tuple[Tensor, int, int]] = []
        self._saved, self._cost = time.perf_counter(), 0.0  # the last checkpoint: when, seconds
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    # --- the course of a run ---------------------------------------------------------------------

    def train(self) -> None:
        """Train from where it is to the end, write model.safetensors and metrics.json."""
        if self.processes.first:
            stale = [] if not self._anew else [self.out / BRANCH, *self.out.glob("best-*.safetensors")]
            for path in (*self.out.glob(".*.part"), *stale):  # half-written, or of an earlier start
                path.unlink(missing_ok=True)
            cut_log(self.out / "log.jsonl", self.progress, self.steps)
        try:
            while self.progress.leg < len(self.legs):
                self._leg(self.legs[self.progress.leg])
        except Diverged:
            self.say(f"{self.out.name}: {self.progress.divergence()}")
        test = None
        if self.progress.diverged is None:
            self.model.load_state_dict(self.best)
            test = self._evaluate("test")
        self.processes.wait()
        if self.processes.first:
            if self.best:
                header = {"spec": self.run.spec(), "epoch": (self.progress.best or {})["epoch"]}
                checkpoint.write(self.out / "model.safetensors", self.best, header)
            content = point(self.run, self.problem, self.progress, self.how, test)
            files.write_json(self.out / "metrics.json", content)
            clean(self.out)
        self.processes.wait()

    def _leg(self, leg: Leg) -> None:
        if leg.branch and self.progress.step == leg.begin:
            self._save(LAST)  # the trunk waits here
        while True:
            progress = self.progress
            if not leg.branch and progress.step // self.steps > len(progress.epochs):
                self._end_epoch()
            if progress.step == leg.end:
                break
            self._step(leg)
            self._look(BRANCH if leg.branch else LAST)
        if leg.branch:
            self._finish_branch(leg)
        self.progress.leg += 1
        if leg.branch:
            self._save(LAST)
            (self.out / BRANCH).unlink(missing_ok=True)

    def _step(self, leg: Leg) -> None:
        begun, progress = time.perf_counter(), self.progress
        epoch, within = divmod(progress.step, self.steps)
        if self._order[0] != epoch:
            self._order = epoch, self.problem.order(epoch + 1)
        size = self.run.course.batch_size
        chosen = self._order[1][within * size : (within + 1) * size]
        rate = self._rate(leg, progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        n, positions = self.problem.targets(chosen), self.problem.positions(chosen)
        self._losses.append((self._gradients(chosen), n, positions))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.epoch_targets += n
        progress.targets += n
        progress.positions += positions
        if (within + 1) % LOG_EVERY == 0 or within + 1 == self.steps:
            self._flush()
        seconds = time.perf_counter() - begun
        progress.epoch_seconds += seconds
        progress.training += seconds
        progress.seconds += seconds
        if self.processes.first and ((within + 1) % LOG_EVERY == 0 or within + 1 == self.steps):
            ends = self.run.course.epochs, self.legs[-1].end
            row = progress.row(epoch + 1, within + 1, self.steps, *ends, rate)
            with (self.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _gradients(self, chosen: np.ndarray) -> Tensor:
        """Mean gradients over the targets of a batch, in micro-batches; returns the summed loss.

        On a GPU that runs out of memory the micro-batch halves, and the step begins again.
        """
        rank, world = self.processes.rank, self.processes.world
        mine, weight = chosen[rank::world], world / self.problem.targets(chosen)  # DDP takes the mean
        if not len(mine):  # fewer examples than processes: this one must still take part
            mine, weight = chosen[:1], 0.0
        while True:
            size = self.how.micro_batch or len(mine)
            parts = [mine[begin : begin + size] for begin in range(0, len(mine), size)]
            seed = np.random.SeedSequence([self.run.seed, self.progress.leg, self.progress.step, rank])
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))  # dropout
            total = torch.zeros((), device=self.processes.device)
            try:
                for number, part in enumerate(parts, 1):
                    total += self._backward(part, weight, last=number == len(parts))
                return total
            except torch.OutOfMemoryError as error:
                self._halve(size, error)

    def _backward(self, part: np.ndarray, weight: float, last: bool) -> Tensor:
        """Add the gradients of a micro-batch; returns its summed loss."""
        batch = self.problem.take(part)
        with contextlib.nullcontext() if last else self._no_sync():
            loss = self.objective(*batch)
            (loss * weight).backward()
        return torch.as_tensor(loss.detach() * (weight > 0))

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of all but the last micro-batch stay in their process."""
        if isinstance(self.objective, DistributedDataParallel):
            return self.objective.no_sync()
        return contextlib.nullcontext()

    def _halve(self, size: int, error: Exception) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.processes.world > 1:
            raise InputError(
                f"{self.out}: out of memory with {size} examples in a process; several processes cannot "
                f"agree on less by themselves: pass --micro-batch {max(1, size // 2)}"
            ) from error
        if size == 1:
            raise InputError(
                f"{self.out}: out of memory with a single example; pass --recompute or use a larger device"
            ) from error
        if self.how.device == "cuda":
            torch.cuda.empty_cache()
        self.how = replace(self.how, micro_batch=size // 2)
        self.progress.changes.append(f"out of memory: micro_batch {size} -> {size // 2}")
        self.say(f"{self.out.name}: out of memory with {size} examples at once, goes on with {size // 2}")

    def _rate(self, leg: Leg, step: int) -> float:
        switched = self.progress.switched is not None
        peak = self.run.course.switch_learning_rate if switched else self.run.course.learning_rate
        return (peak or 0.0) * factor(self.run.course, leg, step, self.steps)

    def _optimizer(self) -> torch.optim.Optimizer:
        """That of the problem, or SGD after the switch."""
        course = self.run.course
        if self.progress.switched is None:
            return self.problem.optimizer(course)
        rate = course.switch_learning_rate or 0.0
        return torch.optim.SGD(self.model.parameters(), rate, weight_decay=course.weight_decay)

    # --- after an epoch --------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        progress, epoch = self.progress, len(self.progress.epochs) + 1
        # All evaluations first: a signal in one of them saves the state as it was before the first.
        course = self.run.course
        final = epoch == course.epochs
        tested = epoch in course.test_epochs and (final or course.schedule == "cosine")
        valid = self._evaluate("valid")  # (under a constant schedule a branch measures the others)
        if not math.isfinite(valid["loss"]):
            mean = progress.epoch_loss / progress.epoch_targets
            self._diverge("valid", progress.step - 1, [mean])
        test = self._evaluate("test") if tested else None
        row = {
            "epoch": epoch,
            "train_loss": progress.epoch_loss / progress.epoch_targets,
            "valid": valid,
            "optimizer": "adam" if progress.switched is None else "sgd",
            "seconds": progress.epoch_seconds,
            "targets_per_second": progress.epoch_targets / progress.epoch_seconds,
        }
        progress.epochs.append(row)
        if progress.best is row:
            state = self.model.state_dict().items()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state}
            self._best_on_disk = None
        if test is not None:
            self._record_test(epoch, final, valid, test)
        progress.epoch_loss, progress.epoch_targets, progress.epoch_seconds = 0.0, 0, 0.0
        headline = self.problem.headline
        self.say(
            f"{self.out.name}: epoch {epoch}/{course.epochs}  train {row['train_loss']:.4f}  "
            f"valid {valid['loss']:.4f}  {headline} {valid[headline]:.4f}  "
            f"{row['targets_per_second']:,.0f} targets/s"
        )
        self._switch_if_converged(epoch)
        if time.perf_counter() - self._saved > self._cost / SAVE_SHARE:
            self._save(LAST)

    def _switch_if_converged(self, epoch: int) -> None:
        """Adam has converged when no epoch of the last `switch_patience` was the best on valid."""
        progress, best = self.progress, self.progress.best
        course = self.run.course
        if not course.switch_patience or progress.switched is not None or best is None:
            return
        if epoch - best["epoch"] >= course.switch_patience and epoch < course.epochs:
            progress.switched = {"after_epoch": epoch, "weights_of_epoch": best["epoch"]}
            self.model.load_state_dict(self.best)
            self.optimizer = self._optimizer()
            self.say(f"{self.out.name}: SGD from here, with the weights of epoch {best['epoch']}")

    def _finish_branch(self, leg: Leg) -> None:
        """Measure the cooled-down weights, then put the trunk back."""
        self._flush()
        branch = self.progress
        valid, test = self._evaluate("valid"), self._evaluate("test")
        self._record_test(leg.end // self.steps, True, valid, test)
        self.processes.wait()
        try:
            header, tensors = checkpoint.resume(self.out / LAST, self._belongs())
            self._put(header, tensors)
        except checkpoint.Unusable as error:
            raise InputError(
                f"{self.out / LAST}: the trunk of the run cannot be read: {error}; remove it to start anew"
            ) from error
        self.processes.wait()  # before the first one writes it anew
        for name in ("tests", "seconds", "saving", "changes"):
            setattr(self.progress, name, getattr(branch, name))

    def _record_test(
        self, epoch: int, finished: bool, valid: dict[str, float], test: dict[str, float]
    ) -> None:
        """A row of `tests`. `finished`: its learning rate had come to zero; else a point of a curve."""
        positions, targets = (epoch * number for number in self.problem.epoch())
        row = {"epoch": epoch, "finished": finished, "D_seen": targets}
        row["C"] = self.problem.flops(positions, targets)
        self.progress.tests.append(row | {"valid": valid, "test": test})

    def _evaluate(self, split: str) -> dict[str, float]:
        begun = time.perf_counter()
        result = self.problem.evaluate(split, self.processes, self._stop_if_asked)
        self.progress.seconds += time.perf_counter() - begun
        return result

    # --- looks at the loss, at signals and at the clock ------------------------------------------

    def _flush(self) -> None:
        """Add the losses since the last look to the epoch's sum. Raises Diverged."""
        if not self._losses:
            return
        losses = self.processes.sum(torch.stack([loss for loss, _, _ in self._losses]).double().tolist())
        steps, self._losses = self._losses, []
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                for _, n, positions in steps[number + 1 :]:  # trained with weights that are lost
                    self.progress.targets -= n
                    self.progress.positions -= positions
                means = [loss / n for loss, (_, n, _) in zip(losses[:number], steps, strict=False)]
                self._diverge("train", self.progress.step - len(losses) + number, means[-10:])
            self.progress.epoch_loss += loss

    def _diverge(self, split: str, step: int, losses: list[float]) -> None:
        """Record what led to a loss that is not finite after `step`: mean losses just before."""
        self.progress.diverged = {
            "split": split,
            "epoch": step // self.steps + 1,
            "step": step % self.steps + 1,
            "learning_rate": self._rate(self.legs[self.progress.leg], step),
            "losses_before": losses,
        }
        raise Diverged

    def _look(self, name: str) -> None:
        """Stop where that is asked for; write a checkpoint where one is due. The processes agree."""
        due = time.perf_counter() - self._saved > max(SAVE_EVERY, self._cost / SAVE_SHARE)
        reason = self.stop()
        wish = TAKEN if reason == ANOTHER else STOP if reason else SAVE if due else NOTHING
        wish = int(self.processes.largest(wish if self.processes.first or wish > SAVE else NOTHING))
        if wish == SAVE:
            self._save(name)
        elif wish > SAVE:
            self._stop(reason or "a signal to another process", wish)

    def _stop_if_asked(self) -> None:
        """The same inside an evaluation, where several processes do not meet."""
        reason = self.stop()
        if reason and self.processes.world == 1:
            self._stop(reason, TAKEN if reason == ANOTHER else STOP)

    def _stop(self, reason: str, wish: int) -> None:
        if wish == TAKEN:
            raise Interrupted(f"{self.out.name}: {ANOTHER} has taken it over; nothing was written")
        branch = self.progress.leg < len(self.legs) and self.legs[self.progress.leg].branch
        self._save(BRANCH if branch else LAST)
        where = self.progress.where(self.steps)
        said = f"{self.out.name}: stopped by {reason} {where}; saved, the next start goes on there"
        raise Interrupted(said if self.processes.first else "")

    # --- the resume state ------------------------------------------------------------------------

    def _belongs(self) -> dict[str, Any]:
        return {"spec": self.run.spec(), "data_sha256": self.problem.sha256}

    def _save(self, name: str) -> None:
        """Write the checkpoint; the weights of the best epoch first, the ones before them last."""
        self._flush()
        begun, best = time.perf_counter(), self.progress.best
        if self.processes.first:
            if best is not None and self._best_on_disk != best["epoch"]:
                checkpoint.write(self._best_path(best["epoch"]), self.best, {"epoch": best["epoch"]})
                self._best_on_disk = best["epoch"]
            header = self._belongs() | {"execution": asdict(self.how), "progress": vars(self.progress)}
            checkpoint.save(self.out / name, header, self.model, self.optimizer)
            for path in self.out.glob("best-*.safetensors"):
                if best is None or path != self._best_path(best["epoch"]):
                    path.unlink()
        self._saved = time.perf_counter()
        self._cost = self._saved - begun
        self.progress.saving += self._cost

    def _best_path(self, epoch: int) -> Path:
        return self.out / f"best-{epoch}.safetensors"

    def continue_from(self, header: dict[str, Any], tensors: checkpoint.Tensors) -> None:
        """Put a run where a checkpoint left it. Raises checkpoint.Unusable."""
        self._put(header, tensors)
        best = self.progress.best
        if best is not None:
            self.best = checkpoint.read(self._best_path(best["epoch"]))[1]
            self._best_on_disk = best["epoch"]
        self._anew = False
        self.say(f"{self.out.name}: continues {self.progress.where(self.steps)}")

    def _put(self, header: dict[str, Any], tensors: checkpoint.Tensors) -> None:
        try:
            self.progress = Progress(**json.loads(json.dumps(header["progress"])))
        except (KeyError, TypeError) as error:
            raise checkpoint.Unusable(f"its progress cannot be read: {error}") from error
        self.optimizer = self._optimizer()
        checkpoint.restore(tensors, self.model, self.optimizer)
