"""What verbs share: how a verb is described, options that several have, and the study that is meant."""

from __future__ import annotations

import argparse
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.study import schema, study
from recscale.study.study import Study

PER_TARGET = 6.0  # FLOPs of training, a parameter and target
CONFIG, DATASETS = Path("config/config.yaml"), Path("config/datasets.yaml")


@dataclass(frozen=True)
class Verb:
    """A verb: its name, what it does in a line, its options and its call, which imports what it needs."""

    name: str
    text: str
    options: Callable[[ArgumentParser], None]
    call: Callable[[Namespace], None]


def printable(text: str) -> str:
    """Control characters but for tabs and line ends as \\x1b: names in a log may have any."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def say(line: str) -> None:
    """Print a line at once, without what a terminal would obey."""
    try:
        print(printable(line), flush=True)
    except BrokenPipeError:  # whoever read is gone; the work goes on, and its files say the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- the study that is meant --------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """A study, the content of the config file, and where the study's results are."""

    study: Study
    config: dict[str, Any]

    @property
    def results(self) -> Path:
        """The folder of all results."""
        return Path(self.config["results_dir"])

    @property
    def folder(self) -> Path:
        """results/<study>."""
        return self.results / self.study.name


def chosen(args: Namespace) -> Chosen:
    """The study that `args.study` names, by name or file; without one that of the config file.

    Raises InputError.
    """
    config = schema.read_yaml(args.config, "config")
    name = str(args.study or config["study"])
    path = Path(name) if name.endswith(".yaml") else args.config.parent / "studies" / f"{name}.yaml"
    return Chosen(study.load(path), config)


def entry_of(wanted: Study, datasets: Path) -> dict[str, Any]:
    """What the datasets file says of the study's dataset. Raises InputError."""
    study.check_dataset(wanted, datasets)
    return dict(schema.read_yaml(datasets, "datasets")[wanted.dataset])


# --- options that several verbs have ------------------------------------------------------------


def of_config(parser: Any) -> None:
    parser.add_argument("--config", type=Path, default=CONFIG, help="reads: where results live")


def of_study(parser: Any) -> None:
    parser.add_argument("study", nargs="?", help="a study's name; default: the one in the config file")
    of_config(parser)


def of_datasets(parser: Any) -> None:
    parser.add_argument("--datasets", type=Path, default=DATASETS, help="reads: the datasets file")


def of_prepared(parser: Any) -> None:
    parser.add_argument("--data", type=Path, required=True, help="reads: prepared dataset folder")


def of_threads(parser: Any) -> None:
    parser.add_argument("--threads", type=positive, default=1, help="processor cores to use (default 1)")


def of_json(parser: Any, text: str) -> None:
    parser.add_argument("--json", type=Path, help=f"writes: {text}")


def of_plot(parser: Any) -> None:
    parser.add_argument(
        "--plot", type=picture, help="writes: PNG (and PDF beside it), PDF or SVG; and its CSV"
    )


def of_device(parser: Any) -> None:
    parser.add_argument("--device", default="here", help="here (default, measured), A100-80GB, H100 or H200")
    parser.add_argument("--devices", type=positive, default=1, help="that train one run together (default 1)")


def of_fit(parser: Any) -> None:
    """Which rows of a table are fitted, and how."""
    parser.add_argument("--run", metavar="COL", help="column of the run, where a run has several rows")
    parser.add_argument(
        "--where", metavar="COL=VALUE", help="only these rows; also != < <= > >=, and a|b for one of them"
    )
    parser.add_argument(
        "--lowest-of", metavar="COL", help="of rows that differ in it, as learning rates, the best --y"
    )
    parser.add_argument("--level", type=float, default=0.9, help="of intervals (default 0.9)")
    parser.add_argument(
        "--delta", type=float, help="Huber threshold (default: from the noise, 0.001 or more; inf: squares)"
    )
    parser.add_argument("--resamples", type=positive, default=1000, help="of the bootstrap (default 1000)")


def of_per_target(parser: Any) -> None:
    parser.add_argument(
        "--per-target",
        type=amount,
        default=PER_TARGET,
        help="FLOPs a parameter and target where C is not given (6)",
    )


# --- kinds of values ----------------------------------------------------------------------------


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def picture(text: str) -> Path:
    if not text.endswith((".png", ".pdf", ".svg")):
        raise argparse.ArgumentTypeError(f"{text} does not end with .png, .pdf or .svg")
    return Path(text)


def memory(text: str) -> int:
    number, unit = text.rstrip("BKMGkmgb"), text.lstrip("0123456789.").upper().removesuffix("B")
    if not number.replace(".", "", 1).isdigit() or unit not in ("K", "M", "G"):
        raise argparse.ArgumentTypeError(f"{text} is not a number with KB, MB or GB")
    return int(float(number) * 1000 ** ("KMG".index(unit) + 1))


def pairs(text: str | None, what: str) -> dict[str, str]:
    """N=params,D=tokens as a mapping; a lone column or number is under ''. None has no pairs.

    A name or value that has a comma or an equals sign stands in double quotes.

    Raises InputError, beginning with `what`, for anything else.
    """
    found: dict[str, str] = {}
    for part in () if text is None else re.findall(r'(?:"[^"]*"|[^,"])+|(?<=,)$|^$', text):
        pieces = re.fullmatch(r'((?:"[^"]*"|[^="])*)(=?)(.*)', part, re.S)
        assert pieces is not None  # anything matches
        name, equals, value = (piece.strip().strip('"') for piece in pieces.groups())
        if not name or (equals and not value) or (not equals and "," in str(text)) or name in found:
            raise InputError(f"{what} {text}: is not NAME=VALUE, several joined by commas")
        found[name if equals else ""] = value if equals else name
    return found
