"""A fitted law in words: one line, or what a terminal shows, with no digit that the runs cannot support."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from math import floor, inf, log10
from operator import itemgetter

from recscale.laws.noise import DELTA
from recscale.laws.result import NATS, Fit, Status

DIGITS = 4  # a constant more than its interval supports, at most
SHOWN = 7  # held-out points that a terminal lists
NAMED = 5  # outliers that a terminal names
NO_CONSTANTS = (Status.UNDERDETERMINED, Status.TOO_FEW_RUNS, Status.NOT_IDENTIFIED)
EXPONENTS = ("alpha", "beta", "R_D", "R_N")  # what a reader compares: always with their intervals


def summary(fit: Fit) -> str:
    """One line: the law, its intervals, the status and the held-out error.

    A constant whose interval is open prints as its name. The formula has as many digits as it takes to give
    the fitted curve (constants that move together cannot be rounded one by one); an exponent stands again
    with its interval and no digit that this cannot support. Where there is no law, the line says why.
    """
    title = f"{fit.law}: "
    if fit.parameters is None:
        return f"{title}{fit.status}. {fit.meaning}"
    point, listed = {}, []
    places = _places(fit)
    for name, value in fit.parameters.items():
        if name in fit.fixed:
            point[name] = f"{value:g}"
            continue
        ends = fit.intervals[name]
        place = _place(value, *ends)
        within = "not bounded" if ends == [None, None] else f"[{', '.join(_ends(ends, place))}]"
        known = fit.status not in NO_CONSTANTS and None not in ends
        point[name] = _number(value, places[name]) if known else name
        if not known:
            listed.append(f"{name} {within}")
        elif name in EXPONENTS:
            listed.append(f"{name} {_number(value, place)} {within}")
    method = fit.interval_method.split(" ")[0]
    words = [_written(fit, point), *listed]
    line = f"{title}{', '.join(words)} ({100 * fit.level:g} %, {method}), {fit.status}"
    return "; ".join([line, *_tested(fit)])


def _tested(fit: Fit) -> list[str]:
    """The largest held-out error beside that of the cheapest guess, and whether the law is the better one."""
    known = [entry for entry in fit.held_out if entry["error"] is not None]
    if not known:
        return []
    sizes = "1 size" if len(known) == 1 else f"{len(known)} sizes"
    law, guess = ([entry[key] for entry in known] for key in ("error", "baseline_error"))
    line = (
        f"held out {sizes}, largest error {100 * max(law):.2g} % (largest fitted point: "
        f"{100 * max(guess):.2g} %)"
    )
    return [line, "no better than that guess"] if sum(law) >= sum(guess) else [line]


def paragraph(fit: Fit) -> str:
    """What a terminal shows of a fit: a line a constant, then what the runs say of it."""
    lines = [f"{fit.law}: {fit.shape.formula}   ({fit.shape.source})", f"{fit.status}: {fit.meaning}"]
    places = _places(fit) if fit.parameters else {}
    for parameter in fit.shape.parameters if fit.parameters else ():
        value, ends = (fit.parameters or {})[parameter.name], fit.intervals[parameter.name]
        place = _place(value, *ends)
        within = "given" if parameter.name in fit.fixed else f"[{', '.join(_ends(ends, place))}]"
        number = f"{value:g}" if parameter.name in fit.fixed else _number(value, places[parameter.name])
        number = "-" if ends == [None, None] else number
        meaning = parameter.meaning.replace(NATS, fit.unit)
        lines.append(f"  {parameter.name:<7} {number:>10}  {within:<26} {meaning}")
    left = f", {len(fit.points_left_out)} left out" if fit.points_left_out else ""
    left += f" ({fit.points_left_out[0]['reason']})" if fit.points_left_out else ""
    runs = len({point.get("run", place) for place, point in enumerate(fit.points_used)})
    rows = f", {len(fit.points_used)} rows" if runs < len(fit.points_used) else ""
    lines.append(f"{runs} runs{rows}{left}")
    if fit.share_of_starts is not None:
        lines[-1] += f"; {100 * fit.share_of_starts:.0f} % of {fit.starts:,} starts reach the optimum"
        lines[-1] += f"; condition {fit.condition:.2g}" if fit.condition is not None else ""
        huber = "least squares" if fit.delta == inf else f"Huber delta {fit.delta:.2g}"
        chosen = "as given" if fit.delta_given else "for the noise" if fit.delta > DELTA else "the usual one"
        noise = "" if fit.sigma is None else f"; noise of one run {100 * fit.sigma:.2g} %"
        lines.append(f"{huber}, {chosen}{noise}")
        method = fit.interval_method if fit.held_out else fit.interval_method.partition(";")[0]
        lines.append(f"{100 * fit.level:g} % intervals: {method}")
    if fit.degenerate_share is not None:
        lines.append(f"{100 * fit.degenerate_share:.2g} % of {fit.resamples:,} resamples degenerate")
    return "\n".join([*lines, *_far(fit), *_held_out(fit)])


def _far(fit: Fit) -> list[str]:
    """A line for each of the first outliers, by its place, and how many more there are."""
    lines = []
    for place in fit.outliers[:NAMED]:
        point = fit.points_used[place]
        curve = float(fit.predict({axis: point[axis] for axis in fit.shape.axes})) if fit.parameters else None
        off = "" if not curve else f", {100 * (point['y'] / curve - 1):+.2g} % off"
        lines.append(f"far from the curve: {_at(fit, point)}: {point['y']:.4g}{off}")
    more = len(fit.outliers) - NAMED
    return [*lines, f"and {more} more"] if more > 0 else lines


def _at(fit: Fit, point: Mapping[str, float]) -> str:
    return ", ".join(f"{fit.x if axis == 'x' else axis} {point[axis]:.4g}" for axis in fit.shape.axes)


def _held_out(fit: Fit) -> list[str]:
    """A line for each of the largest held-out points, and one for all where there are more."""
    known = [entry for entry in fit.held_out if entry["error"] is not None]
    lines = []
    if len(known) > SHOWN:
        law, base = (100 * sum(e[key] for e in known) / len(known) for key in ("error", "baseline_error"))
        lines.append(
            f"held out {len(known)} points, mean error {law:.2g} % (largest fitted point: {base:.2g} %)"
        )
    for entry in known[-SHOWN:]:
        lines.append(
            f"held out {_at(fit, entry)}: measured {entry['measured']:.4g}, predicted "
            f"{entry['predicted']:.4g}, error {100 * entry['error']:.2g} % at "
            f"{entry['extrapolation']:.3g} times the largest fitted "
            f"(largest fitted point: {100 * entry['baseline_error']:.2g} %)"
        )
    if known and sum(e["error"] for e in known) >= sum(e["baseline_error"] for e in known):
        lines.append("the law predicts what was held out no better than the largest fitted point does")
    return lines


def _written(fit: Fit, point: Mapping[str, str]) -> str:
    """The formula with numbers for the constants that are known, and the axis by its name."""
    head, right = fit.shape.formula.split(";")[0].split(" = ", 1)
    known = dict(point) | ({"x": fit.x} if fit.shape.axes == ("x",) else {})
    right = re.sub(r"[A-Za-z_]\w*", lambda word: known.get(word[0], word[0]), right)
    right = right.replace("+ -", "- ").replace("- -", "+ ")
    return f"{head.split('(')[0]} = {right}"


MANY_ROWS = 1000  # from which digits are tried on some of the rows
CLOSE = 1e-3  # of the value: how far the printed formula may be from the fit


def _places(fit: Fit) -> dict[str, int]:
    """Power of ten of the last digit of each constant, so that the formula gives the curve at the runs.

    Of all ways to add digits to those that the intervals support, the one that adds fewest.
    """
    values, axes = fit.parameters or {}, fit.shape.axes
    points = fit.points_used
    if len(points) > MANY_ROWS:  # the ends of each axis, and some between
        by_axis = [sorted(points, key=itemgetter(axis)) for axis in axes]
        step = len(points) // (MANY_ROWS // len(axes))
        points = [point for rows in by_axis for point in (*rows[::step], rows[-1])]
    at = {axis: [run[axis] for run in points] for axis in axes}
    exact = fit.predict(at)

    def off(places: Mapping[str, int]) -> float:
        rounded = {name: float(_number(value, places[name])) for name, value in values.items()}
        return float((abs(fit.shape.predict(at, rounded | fit.fixed) - exact) / abs(exact)).max(initial=0.0))

    places = {name: _place(value, *fit.intervals[name]) for name, value in values.items()}
    ways = product(range(DIGITS + 1), repeat=len(places))
    for more in sorted((way for way in ways if sum(way) <= 2 * DIGITS), key=sum):
        finer = {name: place - n for (name, place), n in zip(places.items(), more, strict=True)}
        if off(finer) <= CLOSE:
            return finer
    return places


def _ends(ends: list[float | None], place: int) -> list[str]:
    return ["not bounded" if end is None else _number(end, place) for end in ends]


def _place(value: float, lo: float | None, hi: float | None) -> int:
    """Power of ten of the last digit that an interval supports.

    Two digits of the half-width where it begins with 1 or 2, else one, as for printed errors; never
    more than four digits of the value.
    """
    half = (value if hi is None else hi) - (value if lo is None else lo)
    half /= 2
    finest = floor(log10(abs(value) * (1 + 1e-9))) - 3 if value else -4  # 0.09999999999 is 0.1
    if half <= 0:
        return finest
    place = floor(log10(half))
    return max(place - (half < 3 * 10.0**place), finest)


def _number(value: float, place: int) -> str:
    """value to 10^place, but never to nothing: at least one digit."""
    if value == 0:
        return "0"
    if value < 0:
        return f"-{_number(-value, place)}"
    place = min(place, floor(log10(value)))
    if place <= 0 and value >= 1e-3:
        return f"{value:.{-place}f}"
    mantissa, power = f"{value:.{max(0, floor(log10(value)) - place)}e}".split("e")
    return f"{mantissa}e{int(power)}" if int(power) else mantissa
