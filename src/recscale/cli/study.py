"""Verbs of a study: collect, plot, publish, report, status, plan, doctor; and bench."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from recscale import files
from recscale.cli.options import (
    Verb,
    chosen,
    entry_of,
    of_config,
    of_datasets,
    of_device,
    of_json,
    of_study,
    of_threads,
    positive,
    say,
)
from recscale.errors import InputError
from recscale.study import study

MORE_ROUNDS = 2  # measurements of this machine besides the first, for the spread


def collect_options(parser: ArgumentParser) -> None:
    parser.add_argument("study", type=Path, help="reads: the study file")
    parser.add_argument("--runs", type=Path, help="reads: folder of the runs")
    parser.add_argument("--references", type=Path, help="reads: reference metrics")
    parser.add_argument("--tasks", type=Path, help="reads: folder of the tasks")
    parser.add_argument("--out", type=Path, required=True, help="writes: points and curves, or tasks here")


def collect(args: Namespace) -> None:
    if args.tasks is not None:
        _collect_tasks(args)
        return
    from recscale.report.points import collect

    if args.runs is None or args.references is None:
        raise InputError("collect: give --runs FOLDER and --references FILE, or --tasks FOLDER")
    points, curves = collect(study.load(args.study), args.runs, args.references)
    files.write_table(points, args.out / "points.parquet", args.out / "points.csv")
    files.write_table(curves, args.out / "curves.parquet", args.out / "curves.csv")
    for row in points[~points["beats_popularity"]].itertuples():
        say(f"{row.run}: does not beat item popularity on test loss")


def _collect_tasks(args: Namespace) -> None:
    from recscale.next_item.tasks.table import collect

    table = collect(study.load(args.study), args.tasks)
    files.write_table(table, args.out / "tasks.parquet", args.out / "tasks.csv")
    say(f"{len(table)} values of {table['task'].nunique()} tasks and {table['run'].nunique()} runs")


def plot_options(parser: ArgumentParser) -> None:
    parser.add_argument("study", help="a study's name, or reads: the study file")
    parser.add_argument("figure", nargs="?", help="a name under `figures` or `tasks` there; default: all")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--from", dest="source", choices=["results", "published"], help="reads: results/[published/]<study>"
    )
    where.add_argument("--results", type=Path, help="reads: this folder in its place")
    parser.add_argument(
        "--out", type=Path, help="writes: a PNG, or a folder for all; default results/<study>/figures"
    )
    of_config(parser)


def plot(args: Namespace) -> None:
    it = chosen(args)
    published = it.results / "published" / it.study.name
    source = args.results or (published if args.source == "published" else it.folder)
    if args.figure is None:
        from recscale.report.publish import draw_all

        out = args.out or it.folder / "figures"
        say(f"{len(draw_all(it.study, source, out, say))} figures in {out}")
        return
    out = args.out or it.folder / "figures" / f"{args.figure}.png"
    if args.figure in study.TASKS:
        from recscale.report.figures import tasks as figures
    else:
        from recscale.report.figures import study as figures  # type: ignore[no-redef]
    figures.draw(args.figure, it.study, source, out)


def publish_options(parser: ArgumentParser) -> None:
    of_study(parser)
    parser.add_argument(
        "--restore", action="store_true", help="published runs to results/<study>, where they count as done"
    )


def publish(args: Namespace) -> None:
    from recscale.report import publish

    it = chosen(args)
    published = it.results / "published" / it.study.name
    sequences = it.results / "data" / it.study.dataset / "sequences.parquet"
    if args.restore:
        publish.restore(it.study, published, it.folder, say, sequences)
    else:
        publish.publish(it.study, it.folder, published, say, sequences)


def report(args: Namespace) -> None:
    from recscale.report.page import report

    it = chosen(args)
    report(it.study, it.folder, say)


def status(args: Namespace) -> None:
    from recscale.cluster import slurm
    from recscale.cluster.status import status

    it = chosen(args)
    jobs, wrong = slurm.jobs(Path.cwd())
    table = status(it.study, it.folder / "runs", jobs)
    say(table.loc[:, (table != "").any()].to_string(index=False))
    if wrong:
        say(f"the queue is not known: {wrong}")
    counts = table["state"].value_counts()
    say(f"{len(table)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items()))


def plan_options(parser: ArgumentParser) -> None:
    of_study(parser)
    of_datasets(parser)
    of_device(parser)
    of_threads(parser)
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--cores", type=positive, default=cores, help="that runs share here, as Snakemake's --cores (all)"
    )
    parser.add_argument("--precision", choices=["bfloat16", "float32"], help="default: the device's best")
    parser.add_argument("--recompute", action="store_true", help="activations again in backward")
    of_json(parser, "the rows")


def plan(args: Namespace) -> None:
    from recscale.plan import devices, here, plan

    it = chosen(args)
    entry = entry_of(it.study, args.datasets)
    timed = any(run.sample.data_axis == "time" for run in it.study.runs.values())
    data = plan.counts(it.study.dataset, it.results / "data" / it.study.dataset, entry, timed)
    load = os.getloadavg()[0]  # before the measurement adds to it
    rounds = [here.device(args.device, args.threads)]
    device = rounds[0]
    if device.name == "here":
        rounds += [here.device(args.device, args.threads) for _ in range(MORE_ROUNDS)]
    by_hand = {key: getattr(args, key) for key in ("precision", "recompute") if getattr(args, key)}
    how = devices.computed(device, args.devices, args.threads, by_hand)
    rows = plan.plan(it.study, data, it.folder / "runs", rounds, how)
    if args.json is not None:
        files.write_json(args.json, rows)
    say(plan.text(rows, plan.tasks(it.study, data, device, how), device, how))
    if device.name == "here":
        say(plan.wall_text(rows, args.cores, args.threads))
        busy = here.busy(load, os.cpu_count() or 1, min(args.cores, os.cpu_count() or 1))
        if busy is not None:
            say(busy)


def doctor_options(parser: ArgumentParser) -> None:
    of_study(parser)
    of_datasets(parser)
    slurm = Path("profiles/slurm/config.yaml")
    parser.add_argument("--profile", type=Path, default=slurm, help="reads: the profile")


def doctor(args: Namespace) -> None:
    from recscale.cluster.doctor import checks

    it = chosen(args)
    wrong = 0
    for check in checks(
        args.profile, it.results, Path(it.config["raw_dir"]), entry_of(it.study, args.datasets)
    ):
        wrong += bool(check.remedy)
        say(check.text())
    sys.exit(1 if wrong else 0)


def bench_options(parser: ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="+", default=["2x64", "4x128", "12x256", "24x512"], metavar="SIZE")
    parser.add_argument("--items", nargs="+", type=positive, default=[3706, 26744], help="catalogues")
    parser.add_argument(
        "--precision", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16", "float32"]
    )
    parser.add_argument("--rounds", type=positive, default=3, help="rounds of all, or seeds (default 3)")
    parser.add_argument("--seconds", type=positive, default=10, help="of measured steps each, at least")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--peers", type=Path, help="reads: the environments of make bench-peers")
    parser.add_argument("--quality", choices=["rectools", "recbole"], help="seconds to its best NDCG@10")
    parser.add_argument("--data", type=Path, default=Path("results/data/ml-1m"), help="reads: for --quality")
    parser.add_argument(
        "--limit", type=positive, default=3600, help="seconds of a peer's training (--quality)"
    )
    of_json(parser, "the rows")


def bench(args: Namespace) -> None:
    from recscale.bench import compare as bench

    if args.quality:
        if args.peers is None:
            raise InputError("--quality: needs --peers DIR, the environments that make bench-peers makes")
        name = args.quality
        rows = bench.headline(
            name, args.data, range(1, args.rounds + 1), 5, args.limit, args.threads, args.peers, say
        )
    else:
        rows = bench.bench(
            args.sizes, args.items, args.precision, args.rounds, args.seconds, args.threads, args.peers, say
        )
    say(bench.table(rows))
    if args.json is not None:
        files.write_json(args.json, rows)


COLLECT = Verb(
    "collect",
    "gather a study's metrics.json files into points and curves tables, or its tasks",
    collect_options,
    collect,
)
PLOT = Verb(
    "plot", "draw figures of a study, each as PNG, PDF and the CSV of what is drawn", plot_options, plot
)
PUBLISH = Verb(
    "publish",
    "write a study's finished runs as small files to commit, or bring them back",
    publish_options,
    publish,
)
REPORT = Verb(
    "report", "write a study's report.html and print its laws and where things are", of_study, report
)
STATUS = Verb(
    "status", "print the grid of a study: done, failed and why, running, pending, missing", of_study, status
)
PLAN = Verb("plan", "estimate time and memory of a study's runs here or on accelerators", plan_options, plan)
DOCTOR = Verb(
    "doctor",
    "check what a study needs of this machine and of its cluster; a line and a remedy each",
    doctor_options,
    doctor,
)
BENCH = Verb(
    "bench",
    "measure training and evaluation here, against the machine and other libraries",
    bench_options,
    bench,
)
