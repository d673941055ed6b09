"""Verbs of laws: fit, allocate, forecast; of a study or of any table of runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from recscale import files
from recscale.cli.options import (
    PER_TARGET,
    Verb,
    amount,
    chosen,
    entry_of,
    of_config,
    of_datasets,
    of_device,
    of_fit,
    of_json,
    of_per_target,
    of_plot,
    pairs,
    say,
)
from recscale.errors import InputError
from recscale.laws.names import NAMES
from recscale.study import study

if TYPE_CHECKING:
    import pandas as pd

LEAST = 20  # resamples
OF_A_STUDY = {"law": None, "budget": None, "json": None, "device": "here", "devices": 1}  # at their defaults
OURS = ("N", "N_total", "D", "D_seen", "C")  # columns of points; of others we cannot know what they count


def fit_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="reads: a table (CSV, TSV, JSON lines, Parquet, Excel, a row a run), or a study file",
    )
    own = parser.add_argument_group("a table")
    own.add_argument(
        "--law", metavar="LAW", help="hoffmann, saturating_power, ...; all: compare those that fit"
    )
    own.add_argument(
        "--x",
        action="append",
        metavar="N=COL,D=COL",
        help="columns of the axes; again to compare other columns; a name with , or = in double quotes",
    )
    own.add_argument("--y", metavar="COL", help="column of the loss or the metric")
    own.add_argument("--hold-out", metavar="N=2,D=1", help="largest values (or 10%%) to predict")
    own.add_argument(
        "--unit",
        choices=("nats", "bits", "perplexity"),
        default="nats",
        help="of a loss (default nats); perplexity is fitted as its logarithm",
    )
    own.add_argument("--fix", metavar="A=1,...", help="constants that are given")
    of_fit(own)
    of_json(own, "the fit, or a list of them")
    of_plot(own)
    of = parser.add_argument_group("a study")
    of.add_argument("--points", type=Path, help="reads: points.parquet")
    of.add_argument("--out", type=Path, help="writes: LAW.json each and laws.csv")


def fit(args: Namespace) -> None:
    if args.points is not None or args.out is not None:
        _fit_study(args)
    elif args.law is None or args.x is None or args.y is None:
        raise InputError("fit: give a table with --law, --x and --y, or a study with --points and --out")
    else:
        _fit_table(args)


def _fit_study(args: Namespace) -> None:
    from recscale.report import laws as study_laws

    if args.points is None or args.out is None:
        raise InputError("fit: a study needs both --points FILE and --out FOLDER")
    study_laws.fit(study.load(args.source), args.points, args.out, say)


def _fit_table(args: Namespace) -> None:
    from recscale.laws import table as tables
    from recscale.laws.words import paragraph

    if args.resamples < LEAST:
        raise InputError(f"--resamples: {args.resamples} is below {LEAST}, too few for percentiles")
    fixed, held = pairs(args.fix, "--fix"), pairs(args.hold_out, "--hold-out")
    given = {}
    for name, text in fixed.items():
        try:
            given[name] = float(text)
        except ValueError:
            raise InputError(f"--fix {name}: {text} is not a number") from None
    wanted = [
        tables.Asked(
            pairs(x, "--x"), args.y, held, args.run, given, args.level, args.delta, args.resamples, args.unit
        )
        for x in args.x
    ]
    frame = _rows(args, list(dict.fromkeys(column for one in wanted for column in one.x.values())))
    fits = [
        (tables.fit_table(args.source, frame, form, one), ", ".join(one.x.values()))
        for one in wanted
        for form in tables.forms_of(args.law, list(one.x), args.unit)
    ]
    if len(fits) > 1 and args.plot is not None:
        raise InputError("--plot: draws one law; name it with --law and one --x")
    if args.unit == "perplexity":
        say(f"{args.y} is fitted as its logarithm, the loss in nats")
    say(paragraph(fits[0][0]) if len(fits) == 1 else tables.choice_text(tables.choose(fits)))
    if args.json is not None:
        rows = [found.to_json() | {"columns": columns, "y": args.y} for found, columns in fits]
        files.write_json(args.json, rows[0] if len(rows) == 1 else rows)
    if args.plot is not None:
        from recscale.report.figures import law as law_figure

        law_figure.draw(fits[0][0], args.y, args.plot)
    if all(found.parameters is None for found, _ in fits):
        raise SystemExit(1)


def _rows(args: Namespace, columns: list[str]) -> pd.DataFrame:
    """The rows of a table that `fit` and `allocate` are asked about; says what was left out, and why."""
    from recscale.laws import reading

    written = [] if args.plot is None else [args.plot, *map(args.plot.with_suffix, (".csv", ".pdf"))]
    for path in [*written, *([args.json] if args.json is not None else [])]:
        if path.resolve() == args.source.resolve():
            raise InputError(f"{path}: is the table that is read; a figure and its CSV need other names")
    frame, notes = reading.read(args.source)
    needed = [*columns, args.y] if args.run is None else [*columns, args.y, args.run]
    frame, left = reading.usable(reading.where(frame, args.where, args.source), needed, args.source)
    notes += left
    if args.lowest_of is not None:
        name = NAMES.get(args.law)
        highest = name is not None and not name.positive
        frame, left = reading.lowest(frame, args.lowest_of, columns, args.y, args.source, highest)
        notes += left
    if args.y in frame:
        notes += reading.units(frame, [*columns, args.y])
        notes += reading.cautions(frame, columns, args.y, args.run)
    for line in notes:
        say(line)
    return frame


def allocate_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="reads: CSV or Parquet, a row a run or a checkpoint")
    parser.add_argument(
        "--x", required=True, metavar="N=COL,D=COL,C=COL", help="columns; D or C may be left out"
    )
    parser.add_argument("--y", required=True, metavar="COL", help="column of the loss or the metric")
    parser.add_argument(
        "--law", default="hoffmann", help="the joint law (default hoffmann; of a metric: ceiling)"
    )
    parser.add_argument("--flops", type=amount, nargs="+", help="budgets to tell the best N and D for")
    of_per_target(parser)
    of_fit(parser)
    of_json(parser, "the three ways and the law")
    of_plot(parser)


def allocate(args: Namespace) -> None:
    from recscale.laws.allocate import allocate_table
    from recscale.laws.allocation import text

    x = pairs(args.x, "--x")
    frame = _rows(args, list(x.values()))
    found = allocate_table(
        args.source, frame, x, args.y, args.law, args.run,
        per_target=args.per_target, budgets=args.flops or (), level=args.level, delta=args.delta,
        resamples=args.resamples,
    )  # fmt: skip
    say(text(found))
    if args.json is not None:
        files.write_json(args.json, found.to_json())
    if args.plot is not None:
        from recscale.report.figures import allocation as allocation_figure

        allocation_figure.draw(found, args.y, args.plot)


def forecast_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", help="a study's name, or a law's JSON of recscale fit")
    axes = {"N": "parameters", "D": "training targets", "U": "unique targets", "x": "of one axis"}
    for axis, text in axes.items():
        parser.add_argument(f"--{axis}", type=amount, help=text)
    parser.add_argument("--flops", type=amount, help="budget of one training: prints the best N and D")
    of_plot(parser)
    of_per_target(parser.add_argument_group("a law's JSON"))
    of = parser.add_argument_group("a study")
    of.add_argument("--law", help="default: the study's first law of what is given")
    of.add_argument("--budget", metavar="100GPUh", help="device hours of one training")
    of_device(of)
    of_json(of, "what is printed")
    of_config(of)
    of_datasets(of)


def forecast(args: Namespace) -> None:
    (_forecast_law if args.source.endswith(".json") else _forecast_study)(args)


def _forecast_law(args: Namespace) -> None:
    """The value at a place by one law, or the best N and D for FLOPs."""
    from recscale.laws import forecast
    from recscale.laws.result import Fit

    for name, usual in OF_A_STUDY.items():
        if getattr(args, name) != usual:
            raise InputError(f"forecast: --{name} is for a study; {args.source} is a law")
    fit = Fit.read(Path(args.source))
    asked = {axis: value for axis in ("N", "D", "U") if (value := getattr(args, axis)) is not None}
    if args.flops is not None:
        if {"N", "D"} & set(asked) or args.x is not None:
            raise InputError("forecast: --flops asks for the best N and D: give no place with it")
        best = forecast.best_of(fit, args.flops, args.per_target, args.U)
        unique = args.U if "U" in fit.shape.axes else None
        say(forecast.best_text(fit, best, unique))
        x = {"N": best.n, "D": best.d} | ({} if unique is None else {"U": unique})
    elif fit.shape.axes == ("x",):
        if len(asked) + (args.x is not None) != 1:
            raise InputError(f"forecast: {args.source} is of one axis, {fit.x}: give one value")
        other = [f"--{axis}" for axis in asked if axis != fit.x and fit.x in OURS]
        if other:
            raise InputError(f"forecast: {args.source} is of {fit.x}, not of {other[0]}; give --x")
        x = {"x": next(iter(asked.values()), args.x)}
        say(forecast.text(fit, x))
    else:
        x = asked
        say(forecast.text(fit, x))
    if args.plot is not None:
        from recscale.report.figures import forecast as forecast_figure

        forecast_figure.place(fit, x, args.plot)


def _forecast_study(args: Namespace) -> None:
    """The value at a place by a study's law, or what a budget buys. Raises InputError."""
    from recscale.plan import forecast as study_forecast

    asked = {axis: value for axis in ("N", "D", "U", "x") if (value := getattr(args, axis)) is not None}
    if (args.budget is None) + (args.flops is None) + (not asked) != 2:
        raise InputError("forecast: give one of --budget, --flops, or a place: --N, --D, --N and --D, --x")
    if args.per_target != PER_TARGET:
        raise InputError("forecast: --per-target is for a law's JSON; a study's runs have a C of their own")
    if args.budget is None and (args.device, args.devices) != (OF_A_STUDY["device"], OF_A_STUDY["devices"]):
        raise InputError("forecast: --device and --devices go with --budget")
    args.study = args.source
    it = chosen(args)
    told = study_forecast.read(it.study, it.folder, args.law, set(asked) or {"N", "D"})
    if asked:
        found = study_forecast.place(told, asked)
        say(study_forecast.place_text(told, found))
        content = study_forecast.place_json(told, found)
    else:
        data = it.results / "data" / it.study.dataset
        spent = study_forecast.spend(
            told, data, entry_of(it.study, args.datasets), flops=args.flops, hours=args.budget,
            device=args.device, devices=args.devices,
        )  # fmt: skip
        lines, content = study_forecast.budget_lines(told, spent)
        say("\n".join(lines))
    if args.json is not None:
        files.write_json(args.json, content)
    if args.plot is None:
        return
    from recscale.report.figures import forecast as forecast_figure  # matplotlib, where it draws

    if asked:
        forecast_figure.place(told.fit, found.x, args.plot, "test loss (nats)")
    else:
        budgets, bests = study_forecast.around(told, spent)
        forecast_figure.budget(told.fit, spent.best, budgets, bests, spent.unit, spent.theta, args.plot)


FIT = Verb(
    "fit", "fit scaling laws: one to any table of runs, or those of a study to its points", fit_options, fit
)
ALLOCATE = Verb(
    "allocate",
    "the best N and D for a budget, in three ways, from any table of runs",
    allocate_options,
    allocate,
)
FORECAST = Verb(
    "forecast",
    "what a fitted law says of a model, or the best N and D of a budget",
    forecast_options,
    forecast,
)
