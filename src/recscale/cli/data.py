"""Verbs of datasets: fetch, prepare, card."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from recscale import files
from recscale.cli.options import Verb, memory, of_datasets, of_prepared, say
from recscale.errors import InputError
from recscale.study import schema


def _entries(datasets: Path, *names: str) -> dict[str, Any]:
    """All entries of the datasets file. Raises InputError where one of `names` is not in it."""
    known = schema.read_yaml(datasets, "datasets")
    for name in names:
        if name not in known:
            raise InputError(f"{datasets}: {name} is not one of {', '.join(known)}")
    return known


def fetch_options(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="DATASET", help="a name in the datasets file")
    parser.add_argument("--list", action="store_true", help="only print what to download, and where it goes")
    of_datasets(parser)
    parser.add_argument("--raw", type=Path, default=Path("raw"), help="reads and writes: raw files")
    parser.add_argument("--out", type=Path, help="writes: source.json")


def fetch(args: Namespace) -> None:
    from recscale.data.fetch import fetch, listing

    known = _entries(args.datasets, *args.names)
    if args.list:
        say("\n".join(listing({name: known[name] for name in args.names or known}, args.raw)))
    elif len(args.names) != 1 or args.out is None:
        raise InputError("fetch: give one dataset and --out FILE, or --list")
    else:
        files.write_json(args.out, fetch(args.names[0], known[args.names[0]], args.raw, say))


def prepare_options(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", help="a name in the datasets file; with --check its filters")
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="only say what would be done with this log: files or folders, read in this order",
    )
    of_datasets(parser)
    parser.add_argument("--source", type=Path, help="reads: source.json of fetch")
    parser.add_argument("--out", type=Path, help="writes: this folder")
    parser.add_argument("--max-memory", type=memory, default="2GB", help="that it may take (default 2GB)")


def prepare(args: Namespace) -> None:
    from recscale.data import interactions
    from recscale.data.fetch import check_record
    from recscale.next_item.prepare import prepare

    if args.check is not None:
        _preview(args)
        return
    if args.dataset is None or args.source is None or args.out is None:
        raise InputError("prepare: give a dataset with --source FILE and --out FOLDER, or --check FILE")
    record = files.read_json(args.source, "source", "files")
    entry = _entries(args.datasets, args.dataset)[args.dataset]
    sources = {source["name"]: source for source in entry["sources"]}
    if len(sources) < len(entry["sources"]):
        raise InputError(f"{args.datasets}: {args.dataset}.sources: two of them have one name")
    if record["source"] not in sources:
        raise InputError(f"{args.source}: {record['source']} is not a source in {args.datasets}")
    paths = check_record(record, sources[record["source"]], args.source)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves nothing behind, like Ctrl-C
    log = interactions.log(args.dataset, paths, sources[record["source"]], say, entry)
    stats = prepare(log, entry, args.out, args.max_memory, say)
    stats |= {"dataset": args.dataset, "input": record | {"format": log.source["format"]}}
    files.write_json(args.out / "stats.json", stats)  # last: it says that the others are whole
    odd, targets = stats["interactions"].get("times_outside_1990_to_tomorrow"), stats["targets"]
    if odd:
        say(f"{args.dataset}: {odd:,} times are before 1990 or later than tomorrow: is time_unit right?")
    say(
        f"{args.dataset}: {stats['users']['kept']:,} users, {stats['n_items']:,} items in the "
        f"catalogue, {targets['all']:,} targets ({targets['train']:,} train)"
    )


def _preview(args: Namespace) -> None:
    from recscale.next_item.preview import name_of, preview

    entry = _entries(args.datasets, args.dataset)[args.dataset] if args.dataset else {}
    preview(args.check, args.dataset or name_of(args.check[0]), entry, say)


def card_options(parser: ArgumentParser) -> None:
    of_prepared(parser)
    parser.add_argument("--out", type=Path, required=True, help="writes: card.json, .png, .pdf, .csv here")


def card(args: Namespace) -> None:
    from recscale.next_item.card import card
    from recscale.report.figures import card as card_figure

    log, content = card(args.data)
    card_figure.write(log, content, args.out / "card.png")
    files.write_json(args.out / "card.json", content)  # last: it says that the others are whole
    popularity, entropy = content["popularity"], content["entropy"]
    slope, step = popularity["zipf"]["slope"], entropy["conditional"]["plug_in"]
    say(
        f"{content['dataset']}: {content['users']:,} users, {content['items']:,} items, "
        f"{content['interactions']:,} interactions; Gini {popularity['gini']:.2f}, Zipf slope "
        f"{'-' if slope is None else f'{slope:.2f}'}; entropy {entropy['unigram']['plug_in']:.2f} nats, "
        f"given the item before {'-' if step is None else f'{step:.2f}'}"
    )


FETCH = Verb(
    "fetch", "find or download a dataset's files, check them, write source.json", fetch_options, fetch
)
PREPARE = Verb(
    "prepare", "raw log to sequences.parquet, items.parquet and stats.json", prepare_options, prepare
)
CARD = Verb("card", "what is in the data: card.json, and a figure as PNG, PDF and CSV", card_options, card)
