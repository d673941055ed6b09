"""The command line: `recscale VERB` (or `python -m recscale VERB`); every rule is one such call."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from recscale import files, schema, study
from recscale.errors import InputError, Interrupted

# Verbs import what they need when they run: `status` should not wait for torch.


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # whoever read is gone; the work goes on, and its files say the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dataset(args: argparse.Namespace) -> dict[str, Any]:
    known = schema.read_yaml(args.datasets, "datasets")
    if args.dataset not in known:
        raise InputError(f"{args.datasets}: {args.dataset} is not one of {', '.join(known)}")
    return dict(known[args.dataset])


def fetch(args: argparse.Namespace) -> None:
    from recscale.fetch import fetch, listing

    known = schema.read_yaml(args.datasets, "datasets")
    for name in args.names:
        if name not in known:
            raise InputError(f"{args.datasets}: {name} is not one of {', '.join(known)}")
    if args.list:
        _say("\n".join(listing({name: known[name] for name in args.names or known}, args.raw)))
    elif len(args.names) != 1 or args.out is None:
        raise InputError("fetch: give one dataset and --out FILE, or --list")
    else:
        files.write_json(args.out, fetch(args.names[0], known[args.names[0]], args.raw, _say))


def prepare(args: argparse.Namespace) -> None:
    from recscale import interactions
    from recscale.fetch import check_record
    from recscale.prepare import prepare

    if args.check is not None:
        _preview(args)
        return
    if args.dataset is None or args.source is None or args.out is None:
        raise InputError("prepare: give a dataset with --source FILE and --out FOLDER, or --check FILE")
    record = files.read_json(args.source, "source", "files")
    entry = _dataset(args)
    sources = {source["name"]: source for source in entry["sources"]}
    if len(sources) < len(entry["sources"]):
        raise InputError(f"{args.datasets}: {args.dataset}.sources: two of them have one name")
    if record["source"] not in sources:
        raise InputError(f"{args.source}: {record['source']} is not a source in {args.datasets}")
    paths = check_record(record, sources[record["source"]], args.source)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves nothing behind, like Ctrl-C
    log = interactions.log(args.dataset, paths, sources[record["source"]], _say)
    stats = prepare(log, entry, args.out, args.max_memory, _say)
    stats |= {"dataset": args.dataset, "input": record | {"format": log.source["format"]}}
    files.write_json(args.out / "stats.json", stats)  # last: it says that the others are whole
    targets = stats["targets"]
    _say(
        f"{args.dataset}: {stats['users']['kept']:,} users, {stats['n_items']:,} items in the "
        f"catalogue, {targets['all']:,} targets ({targets['train']:,} train)"
    )


def _preview(args: argparse.Namespace) -> None:
    from recscale.preview import name_of, preview

    entry = _dataset(args) if args.dataset else {}
    preview(args.check, args.dataset or name_of(args.check), entry, _say)


def card(args: argparse.Namespace) -> None:
    from recscale import card_figure
    from recscale.card import card

    log, content = card(args.data)
    card_figure.write(log, content, args.out / "card.png")
    files.write_json(args.out / "card.json", content)  # last: it says that the others are whole
    popularity, entropy = content["popularity"], content["entropy"]
    slope, step = popularity["zipf"]["slope"], entropy["conditional"]["plug_in"]
    _say(
        f"{content['dataset']}: {content['users']:,} users, {content['items']:,} items, "
        f"{content['interactions']:,} interactions; Gini {popularity['gini']:.2f}, Zipf slope "
        f"{'-' if slope is None else f'{slope:.2f}'}; entropy {entropy['unigram']['plug_in']:.2f} nats, "
        f"given the item before {'-' if step is None else f'{step:.2f}'}"
    )


def _stopped_early(number: int, _: Any) -> None:
    """End at once: libraries that load catch exceptions, and then fail of something else."""
    name = signal.Signals(number).name
    with suppress(OSError):  # not print, which may be what was interrupted
        os.write(1, f"recscale: stopped by {name} outside the training; nothing to save\n".encode())
    os._exit(75)


def train(args: argparse.Namespace) -> None:
    if args.log is not None:
        from recscale.attempt import attempt

        run = study.Run.from_spec(args.spec)
        command = [sys.executable, "-m", "recscale", "train", *_of_training(args)]
        sys.exit(attempt(command, run.spec(), args.out, args.log, args.processes, _say))
    for number in (signal.SIGTERM, signal.SIGINT):  # importing torch alone takes seconds
        signal.signal(number, _stopped_early)
    from recscale.train import train

    names = ("device", "precision", "attention", "compile", "allocator", "recompute", "micro_batch")
    by_hand = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    run = study.Run.from_spec(args.spec)
    train(run, args.data, args.out, args.threads, _say, by_hand, args.allow_change)


def _of_training(args: argparse.Namespace) -> list[str]:
    """The options of `train` but for those of the attempt around it."""
    around = ("verb", "call", "log", "processes")
    options = []
    for name, value in vars(args).items():
        if name in around:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            if value or name in ("compile", "recompute"):
                options.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            options += [f"--{option}", str(value)]
    return options


def task(args: argparse.Namespace) -> None:
    if args.task != "references":
        _task_of_run(args)
        return
    from recscale import sequences
    from recscale.references import references

    content = references(sequences.load(args.data))
    files.write_json(args.out, content)
    for name, result in content.items():
        _say(f"{name}: test loss {result['test']['loss']:.4f}, HR@10 {result['test']['HR@10']:.4f}")


def _task_of_run(args: argparse.Namespace) -> None:
    from recscale.tasks import point

    if args.run is None:
        raise InputError(f"task {args.task}: give --run FOLDER, of a trained run")
    content = point.write(args.task, args.run, args.data, args.out, args.threads)
    done = f"{len(content['cells'])} cells, {content['passes']:.1f} passes, {content['seconds']:.1f} s"
    _say(f"{args.run.name}: {args.task}: {done}")


def collect(args: argparse.Namespace) -> None:
    if args.tasks is not None:
        _collect_tasks(args)
        return
    from recscale.points import collect

    if args.runs is None or args.references is None:
        raise InputError("collect: give --runs FOLDER and --references FILE, or --tasks FOLDER")
    points, curves = collect(study.load(args.study), args.runs, args.references)
    for name, table in (("points", points), ("curves", curves)):
        with files.atomic(args.out / f"{name}.parquet") as part:
            table.to_parquet(part, index=False)
        with files.atomic(args.out / f"{name}.csv") as part:
            table.to_csv(part, index=False)
    for row in points[~points["beats_popularity"]].itertuples():
        _say(f"{row.run}: does not beat item popularity on test loss")


def _collect_tasks(args: argparse.Namespace) -> None:
    from recscale.tasks.table import collect

    table = collect(study.load(args.study), args.tasks)
    with files.atomic(args.out / "tasks.parquet") as part:
        table.to_parquet(part, index=False)
    with files.atomic(args.out / "tasks.csv") as part:
        table.to_csv(part, index=False)
    _say(f"{len(table)} values of {table['task'].nunique()} tasks and {table['run'].nunique()} runs")


def fit(args: argparse.Namespace) -> None:
    if args.points is not None or args.out is not None:
        _fit_study(args)
    elif args.law is None or args.x is None or args.y is None:
        raise InputError("fit: give a table with --law, --x and --y, or a study with --points and --out")
    else:
        from recscale import tables

        tables.fit_and_tell(args, _say)


def _fit_study(args: argparse.Namespace) -> None:
    from recscale import study_laws

    if args.points is None or args.out is None:
        raise InputError("fit: a study needs both --points FILE and --out FOLDER")
    study_laws.fit(study.load(args.source), args.points, args.out, _say)


def allocate(args: argparse.Namespace) -> None:
    from recscale import ways

    ways.allocate_and_tell(args, _say)


def forecast(args: argparse.Namespace) -> None:
    from recscale import law_forecast, study_forecast

    (law_forecast if args.source.endswith(".json") else study_forecast).tell(args, _say)


def plot(args: argparse.Namespace) -> None:
    from recscale.publish import draw

    name = (
        args.study if args.study.endswith(".yaml") else args.config.parent / "studies" / f"{args.study}.yaml"
    )
    content = study.load(Path(name))
    results = Path(schema.read_yaml(args.config, "config")["results_dir"])
    source = args.results or results / ("published" if args.source == "published" else "") / content.name
    out = args.out or results / content.name / "figures" / (f"{args.figure}.png" if args.figure else "")
    drawn = draw(content, source, out, _say, args.figure)
    if args.figure is None:
        _say(f"{len(drawn)} figures in {out}")


def publish(args: argparse.Namespace) -> None:
    from recscale import publish

    config = schema.read_yaml(args.config, "config")
    content = study.load(args.config.parent / "studies" / f"{args.study or config['study']}.yaml")
    results = Path(config["results_dir"])
    folder, published = results / content.name, results / "published" / content.name
    if args.restore:
        publish.restore(content, published, folder, _say)
    else:
        publish.publish(content, folder, published, _say)


def status(args: argparse.Namespace) -> None:
    from recscale import queue
    from recscale.status import status

    config = schema.read_yaml(args.config, "config")
    content = study.load(args.config.parent / "studies" / f"{args.study or config['study']}.yaml")
    jobs, wrong = queue.jobs(Path.cwd())
    table = status(content, Path(config["results_dir"]) / content.name / "runs", jobs)
    _say(table.loc[:, (table != "").any()].to_string(index=False))
    if wrong:
        _say(f"the queue is not known: {wrong}")
    counts = table["state"].value_counts()
    _say(f"{len(table)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items()))


def bench(args: argparse.Namespace) -> None:
    from recscale import bench

    if args.quality:
        if args.peers is None:
            raise InputError("--quality: needs --peers DIR, the environments that make bench-peers makes")
        name = args.quality
        rows = bench.headline(
            name, args.data, range(1, args.rounds + 1), 5, args.limit, args.threads, args.peers, _say
        )
    else:
        rows = bench.bench(
            args.sizes, args.items, args.precision, args.rounds, args.seconds, args.threads, args.peers, _say
        )
    _say(bench.table(rows))
    if args.json is not None:
        files.write_json(args.json, rows)


def plan(args: argparse.Namespace) -> None:
    from recscale import cost, plan

    config = schema.read_yaml(args.config, "config")
    named = args.config.parent / "studies" / f"{args.study or config['study']}.yaml"
    content = study.load(args.file or named)
    study.check_dataset(content, args.datasets)
    entry = schema.read_yaml(args.datasets, "datasets")[content.dataset]
    results = Path(config["results_dir"])
    timed = any(run.data_axis == "time" for run in content.runs.values())
    data = plan.counts(content.dataset, results / "data" / content.dataset, entry, timed)
    device = plan.device(args.device, args.threads)
    by_hand = {key: getattr(args, key) for key in ("precision", "recompute") if getattr(args, key)}
    how = cost.computed(device, args.devices, args.threads, by_hand)
    rows = plan.plan(content, data, results / content.name / "runs", device, how)
    if args.json is not None:
        files.write_json(args.json, rows)
    _say(plan.text(rows, plan.tasks(content, data, device, how), device, how))


def doctor(args: argparse.Namespace) -> None:
    from recscale.doctor import checks

    config = schema.read_yaml(args.config, "config")
    content = study.load(args.config.parent / "studies" / f"{args.study or config['study']}.yaml")
    study.check_dataset(content, args.datasets)
    entry = schema.read_yaml(args.datasets, "datasets")[content.dataset]
    wrong = 0
    for check in checks(args.profile, Path(config["results_dir"]), Path(config["raw_dir"]), entry):
        wrong += bool(check.remedy)
        _say(check.text())
    sys.exit(1 if wrong else 0)


def report(args: argparse.Namespace) -> None:
    from recscale.report import report

    report(args.study, args.config, _say)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _png(text: str) -> Path:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text} does not end with .png")
    return Path(text)


def _bytes(text: str) -> int:
    number, unit = text.rstrip("BKMGkmgb"), text.lstrip("0123456789.").upper().removesuffix("B")
    if not number.replace(".", "", 1).isdigit() or unit not in ("K", "M", "G"):
        raise argparse.ArgumentTypeError(f"{text} is not a number with KB, MB or GB")
    return int(float(number) * 1000 ** ("KMG".index(unit) + 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recscale", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(call: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(call.__name__, help=text, description=text)
        added.set_defaults(call=call)
        return added

    datasets, config = Path("config/datasets.yaml"), Path("config/config.yaml")
    sub = verb(fetch, "find or download a dataset's files, check them, write source.json")
    sub.add_argument("names", nargs="*", metavar="DATASET", help="a name in the datasets file")
    sub.add_argument("--list", action="store_true", help="only print what to download and where to put it")
    sub.add_argument("--datasets", type=Path, default=datasets, help="reads: the datasets file")
    sub.add_argument("--raw", type=Path, default=Path("raw"), help="reads and writes: raw files")
    sub.add_argument("--out", type=Path, help="writes: source.json")

    sub = verb(prepare, "raw log to sequences.parquet, items.parquet and stats.json")
    sub.add_argument("dataset", nargs="?", help="a name in the datasets file; with --check its filters")
    sub.add_argument("--check", type=Path, metavar="FILE", help="only say what would be done with this log")
    sub.add_argument("--datasets", type=Path, default=datasets, help="reads: the datasets file")
    sub.add_argument("--source", type=Path, help="reads: source.json of fetch")
    sub.add_argument("--out", type=Path, help="writes: this folder")
    sub.add_argument("--max-memory", type=_bytes, default="2GB", help="that it may take (default 2GB)")

    sub = verb(card, "what is in the data: card.json, and a figure as PNG, PDF and CSV")
    sub.add_argument("--data", type=Path, required=True, help="reads: prepared dataset folder")
    sub.add_argument("--out", type=Path, required=True, help="writes: card.json, .png, .pdf, .csv here")

    sub = verb(train, "train one run, evaluate it, write metrics.json and model.safetensors")
    sub.add_argument("--spec", required=True, help="the run as canonical JSON")
    sub.add_argument("--data", type=Path, required=True, help="reads: prepared dataset folder")
    sub.add_argument("--out", type=Path, required=True, help="writes: the run's folder")
    sub.add_argument("--threads", type=_positive, default=1, help="processor cores to use (default 1)")
    sub.add_argument(
        "--log",
        type=Path,
        help="writes: the output too; notes failures beside the run (what rule train uses)",
    )
    sub.add_argument("--processes", type=_positive, default=1, help="with --log: that train it, by torchrun")
    how = sub.add_argument_group("how it is computed", "default: what this machine does best")
    how.add_argument("--device", choices=["cpu", "cuda"])
    how.add_argument("--precision", choices=["bfloat16", "float32"], help="of matrix products")
    how.add_argument("--attention", choices=["plain", "fused"])
    how.add_argument("--allocator", choices=["keep", "default"], help="keep: freed memory stays here")
    switch = argparse.BooleanOptionalAction
    how.add_argument("--compile", action=switch, help="torch.compile; needs a C++ compiler")
    how.add_argument("--recompute", action=switch, help="activations again in backward: less memory")
    how.add_argument("--micro-batch", type=_positive, help="windows at once; the batch stays the same")
    how.add_argument("--allow-change", action="store_true", help="resume a run that began otherwise")

    sub = verb(task, "evaluate what needs no training of its own: a task of a trained run, or references")
    sub.add_argument(
        "task", choices=["references", *study.TASKS], help="references: popularity and first-order Markov"
    )
    sub.add_argument("--run", type=Path, help="reads: folder of the trained run; references needs none")
    sub.add_argument("--data", type=Path, required=True, help="reads: prepared dataset folder")
    sub.add_argument(
        "--out", type=Path, required=True, help="writes: a JSON file; of a run .parquet beside it"
    )
    sub.add_argument("--threads", type=_positive, default=1, help="processor cores to use (default 1)")

    sub = verb(collect, "gather a study's metrics.json files into points and curves tables, or its tasks")
    sub.add_argument("study", type=Path, help="reads: the study file")
    sub.add_argument("--runs", type=Path, help="reads: folder of the runs")
    sub.add_argument("--references", type=Path, help="reads: reference metrics")
    sub.add_argument("--tasks", type=Path, help="reads: folder of the tasks")
    sub.add_argument("--out", type=Path, required=True, help="writes: points and curves, or tasks here")

    sub = verb(fit, "fit scaling laws: one to any table of runs, or those of a study to its points")
    sub.add_argument(
        "source", type=Path, help="reads: a table (CSV or Parquet, a row a run), or a study file"
    )
    own = sub.add_argument_group("a table")
    own.add_argument(
        "--law", metavar="LAW", help="hoffmann, saturating_power, ...; all: compare those that fit"
    )
    own.add_argument(
        "--x",
        action="append",
        metavar="N=COL,D=COL",
        help="columns of the axes; again to compare other columns",
    )
    own.add_argument("--y", metavar="COL", help="column of the loss or the metric")
    own.add_argument("--hold-out", default="", metavar="N=2,D=1", help="largest values (or 10%%) to predict")
    own.add_argument("--where", default="", metavar="COL=VALUE", help="only these rows")
    own.add_argument("--run", metavar="COL", help="column of the run, where a run has several rows")
    own.add_argument("--fix", default="", metavar="A=1,...", help="constants that are given")
    own.add_argument("--level", type=float, default=0.9, help="of intervals (default 0.9)")
    own.add_argument(
        "--delta", type=float, default=1e-3, help="Huber threshold (default 0.001; inf: squares)"
    )
    own.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap (default 1000)")
    own.add_argument("--json", type=Path, help="writes: the fit, or a list of them")
    own.add_argument("--plot", type=_png, help="writes: PNG; PDF and CSV beside it")
    of = sub.add_argument_group("a study")
    of.add_argument("--points", type=Path, help="reads: points.parquet")
    of.add_argument("--out", type=Path, help="writes: LAW.json each and laws.csv")

    sub = verb(allocate, "the best N and D for a budget, in three ways, from any table of runs")
    sub.add_argument("source", type=Path, help="reads: CSV or Parquet, a row a run or a checkpoint")
    sub.add_argument(
        "--x", required=True, metavar="N=COL,D=COL,C=COL", help="columns; D or C may be left out"
    )
    sub.add_argument("--y", required=True, metavar="COL", help="column of the loss or the metric")
    sub.add_argument(
        "--law", default="hoffmann", help="the joint law (default hoffmann; of a metric: ceiling)"
    )
    sub.add_argument("--run", metavar="COL", help="column of the run, where a run has several rows")
    sub.add_argument("--flops", type=_amount, nargs="+", help="budgets to tell the best N and D for")
    sub.add_argument(
        "--per-target", type=_amount, default=6.0, help="FLOPs a parameter and target without C, or D (6)"
    )
    sub.add_argument("--where", default="", metavar="COL=VALUE", help="only these rows")
    sub.add_argument("--level", type=float, default=0.9, help="of intervals (default 0.9)")
    sub.add_argument("--delta", type=float, default=1e-3, help="Huber threshold of the law (default 0.001)")
    sub.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap (default 1000)")
    sub.add_argument("--json", type=Path, help="writes: the three ways and the law")
    sub.add_argument("--plot", type=_png, help="writes: PNG; PDF and CSV beside it")

    sub = verb(forecast, "what a fitted law says of a model, or the best N and D of a budget")
    sub.add_argument("source", help="a study's name, or a law's JSON of recscale fit")
    for axis, text in (
        ("N", "parameters"),
        ("D", "training targets"),
        ("U", "unique targets"),
        ("x", "of one axis"),
    ):
        sub.add_argument(f"--{axis}", type=_amount, help=text)
    sub.add_argument("--flops", type=_amount, help="budget of one training: prints the best N and D")
    sub.add_argument("--plot", type=_png, help="writes: PNG; PDF and CSV beside it")
    of = sub.add_argument_group("a law's JSON")
    of.add_argument(
        "--per-target", type=_amount, default=6.0, help="FLOPs a parameter and target (default 6)"
    )
    of = sub.add_argument_group("a study")
    of.add_argument("--law", help="default: the study's first law of what is given")
    of.add_argument("--budget", metavar="100GPUh", help="device hours of one training")
    of.add_argument("--device", default="here", help="as in recscale plan: here (default), H100, ...")
    of.add_argument("--devices", type=_positive, default=1, help="that train together (default 1)")
    of.add_argument("--json", type=Path, help="writes: what is printed")
    of.add_argument(
        "--config", type=Path, default=Path("config/config.yaml"), help="reads: where results live"
    )
    of.add_argument("--datasets", type=Path, default=datasets, help="reads: the datasets file")

    sub = verb(plot, "draw figures of a study, each as PNG, PDF and the CSV of what is drawn")
    sub.add_argument("study", help="a study's name, or reads: the study file")
    sub.add_argument("figure", nargs="?", help="a name under `figures` or `tasks` there; default: all")
    where = sub.add_mutually_exclusive_group()
    where.add_argument(
        "--from", dest="source", choices=["results", "published"], help="reads: results/[published/]<study>"
    )
    where.add_argument("--results", type=Path, help="reads: this folder in its place")
    sub.add_argument(
        "--out", type=Path, help="writes: a PNG, or a folder for all; default results/<study>/figures"
    )
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")

    sub = verb(publish, "write a study's finished runs as small files to commit, or bring them back")
    sub.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    sub.add_argument(
        "--restore", action="store_true", help="published runs to results/<study>, where they count as done"
    )
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")

    sub = verb(bench, "measure training and evaluation here, against the machine and other libraries")
    sub.add_argument("--sizes", nargs="+", default=["2x64", "4x128", "12x256", "24x512"], metavar="SIZE")
    sub.add_argument("--items", nargs="+", type=_positive, default=[3706, 26744], help="catalogues")
    sub.add_argument(
        "--precision", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16", "float32"]
    )
    sub.add_argument("--rounds", type=_positive, default=3, help="rounds of all, or seeds (default 3)")
    sub.add_argument("--seconds", type=_positive, default=10, help="of measured steps each, at least")
    sub.add_argument("--threads", type=_positive, default=2)
    sub.add_argument("--peers", type=Path, help="reads: the environments of make bench-peers")
    sub.add_argument("--quality", choices=["rectools", "recbole"], help="seconds to its best NDCG@10")
    sub.add_argument("--data", type=Path, default=Path("results/data/ml-1m"), help="reads: for --quality")
    sub.add_argument("--limit", type=_positive, default=3600, help="seconds of a peer's training (--quality)")
    sub.add_argument("--json", type=Path, help="writes: the rows")

    sub = verb(status, "print the grid of a study: done, failed and why, running, pending, missing")
    sub.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")

    sub = verb(plan, "estimate time and memory of a study's runs here or on accelerators")
    sub.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    sub.add_argument("--study", dest="file", type=Path, help="reads: a study file, instead of a name")
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")
    sub.add_argument("--datasets", type=Path, default=datasets, help="reads: the datasets file")
    sub.add_argument("--device", default="here", help="here (default, measured), A100-80GB, H100 or H200")
    sub.add_argument("--devices", type=_positive, default=1, help="that train one run together (default 1)")
    sub.add_argument("--threads", type=_positive, default=1, help="processor cores of a run (default 1)")
    sub.add_argument("--precision", choices=["bfloat16", "float32"], help="default: the device's best")
    sub.add_argument("--recompute", action="store_true", help="activations again in backward")
    sub.add_argument("--json", type=Path, help="writes: the rows")

    sub = verb(
        doctor, "check what a study needs of this machine and of its cluster; a line and a remedy each"
    )
    sub.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")
    sub.add_argument("--datasets", type=Path, default=datasets, help="reads: the datasets file")
    slurm = Path("profiles/slurm/config.yaml")
    sub.add_argument("--profile", type=Path, default=slurm, help="reads: the profile")

    sub = verb(report, "write a study's report.html and print its laws and where things are")
    sub.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    sub.add_argument("--config", type=Path, default=config, help="reads: where results live")
    return parser


def main() -> None:
    """Run a verb. Exit code 2 and one line on standard error for what a user can mend."""
    args = _parser().parse_args()
    try:
        args.call(args)
    except InputError as error:
        sys.exit(_line(str(error)))
    except OSError as error:
        sys.exit(_line(f"{error.filename or args.verb}: {error.strerror or error}"))
    except Interrupted as stopped:
        for number in (signal.SIGTERM, signal.SIGINT):  # torchrun passes on what was there already
            signal.signal(number, signal.SIG_IGN)
        if str(stopped):  # of several processes the first speaks
            _say(f"recscale: {stopped}")
        sys.exit(75)  # EX_TEMPFAIL: start it again
    except KeyboardInterrupt:
        sys.exit(130)


def _line(text: str) -> int:
    print(f"recscale: {' '.join(text.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
