"""The course of a run: which steps follow each other and at what share of the peak rate.

A run is a list of legs. A cosine schedule is one leg. A constant one is a trunk from which, before
each of `test_epochs`, a branch leaves and cools down to zero: a finished point each from one run
(Zhai et al. 2022, section 3.3; Hägele et al. 2024). Steps count from 0 along the trunk, S an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from recscale.study.run import Course


@dataclass(frozen=True)
class Leg:
    """Steps begin..end-1. A branch leaves the trunk at `begin` and is a finished point at `end`."""

    begin: int
    end: int
    cools: bool = False
    branch: bool = False


def legs(course: Course, steps: int) -> list[Leg]:
    """The legs of a run of `steps` steps an epoch, in the order they are trained."""
    if course.schedule == "cosine":
        return [Leg(0, course.epochs * steps)]
    made, at = [], 0
    for epoch in sorted({*course.test_epochs, course.epochs}):
        end = epoch * steps
        begin = max(at, min(end - 1, round((1 - course.cooldown) * end)))  # a step at least
        made += [Leg(at, begin), Leg(begin, end, cools=True, branch=epoch < course.epochs)]
        at = begin
    return [leg for leg in made if leg.end > leg.begin]


def factor(course: Course, leg: Leg, step: int, steps: int) -> float:
    """Share of the peak rate at the middle of `step`, of `steps` an epoch."""
    at = step + 0.5
    if course.schedule == "cosine":
        done = at / (course.epochs * steps)
        if done < course.warmup:
            return done / course.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - course.warmup) / (1 - course.warmup)))
    warm = course.warmup * min((*course.test_epochs, course.epochs)) * steps
    share = at / warm if at < warm else 1.0
    return share * (leg.end - at) / (leg.end - leg.begin) if leg.cools else share
