"""`recscale forecast LAW.json`: what one fitted law says, of any table of runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from recscale import forecast, forecast_figure
from recscale.errors import InputError
from recscale.laws import Fit

OURS = ("N", "N_total", "D", "D_seen", "C")  # columns of points; of others we cannot know what they count


def tell(args: Namespace, say: Callable[[str], None]) -> None:
    """Print the value at a place, or the best N and D for FLOPs. Raises InputError."""
    for name in ("law", "budget", "json"):
        if getattr(args, name) is not None:
            raise InputError(f"forecast: --{name} is for a study; {args.source} is a law")
    fit = Fit.read(Path(args.source))
    asked = {axis: value for axis in ("N", "D", "U") if (value := getattr(args, axis)) is not None}
    if args.flops is not None:
        if {"N", "D"} & set(asked) or args.x is not None:
            raise InputError("forecast: --flops asks for the best N and D: give no place with it")
        best = forecast.allocate(fit, args.flops, args.per_target, args.U)
        unique = args.U if "U" in fit.shape.axes else None
        say(forecast.allocation_text(fit, best, unique))
        x = {"N": best.n, "D": best.d} | ({} if unique is None else {"U": unique})
    elif fit.shape.axes == ("x",):
        if len(asked) + (args.x is not None) != 1:
            raise InputError(f"forecast: {args.source} is of one axis, {fit.x}: give one value")
        other = [
            f"--{axis}" for axis in asked if axis != fit.x and fit.x in ("N", "N_total", "D", "D_seen", "C")
        ]
        if other:
            raise InputError(f"forecast: {args.source} is of {fit.x}, not of {other[0]}; give --x")
        x = {"x": next(iter(asked.values()), args.x)}
        say(forecast.text(fit, x))
    else:
        x = asked
        say(forecast.text(fit, x))
    if args.plot is not None:
        forecast_figure.place(fit, x, args.plot)
