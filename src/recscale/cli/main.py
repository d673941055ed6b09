"""`recscale VERB`: finds the verb, calls it, and ends in one line where a user can mend what is wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import NoReturn

from recscale.cli import data, laws, study, train
from recscale.cli.options import Verb, printable, say
from recscale.errors import InputError, Interrupted

# Verbs by what a user wants, with an example each. They import what they need when they run: `status`
# should not wait for torch.
GROUPS: dict[str, tuple[str, tuple[Verb, ...]]] = {
    "data": ("recscale prepare --check clicks.csv", (data.FETCH, data.PREPARE, data.CARD)),
    "studies": (
        "recscale plan my-study --device H100",
        (study.PLAN, study.STATUS, study.REPORT, study.PLOT, study.PUBLISH, study.BENCH),
    ),
    "laws of a study or of any table": (
        "recscale fit runs.csv --law hoffmann --x N=params,D=tokens --y loss",
        (laws.FIT, laws.ALLOCATE, laws.FORECAST),
    ),
    "clusters": ("recscale doctor my-study", (study.DOCTOR,)),
    "inside the workflow": (
        "recscale train --spec '{...}' --data results/data/ml-1m --out results/my-study/runs/2x64",
        (train.TRAIN, train.TASK, study.COLLECT),
    ),
}


class _Version(argparse.Action):
    """Prints the version; read only when asked for, as it is looked up among the installed packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from recscale import __version__

        say(f"recscale {__version__}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    lines = []
    for group, (example, verbs) in GROUPS.items():
        lines += [f"{group}:", *(f"  {verb.name:<9} {verb.text}" for verb in verbs), f"    {example}", ""]
    made = argparse.ArgumentParser(
        prog="recscale",
        usage="recscale VERB ...   (recscale VERB --help says what a verb reads and writes)",
        description="Scaling laws of recommender models, from raw logs to laws, forecasts and figures.",
        epilog="\n".join(lines).rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="print the version")
    added = made.add_subparsers(
        prog="recscale", dest="verb", required=True, metavar="VERB", help="one of those below"
    )
    for _, verbs in GROUPS.values():
        for verb in verbs:
            one = added.add_parser(verb.name, description=verb.text)
            verb.options(one)
            one.set_defaults(call=verb.call)
    return made


def main() -> None:
    """Run a verb. Exit code 2 and one line on standard error for what a user can mend."""
    built = parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks, after: eval "$(register-python-argcomplete recscale)"
        import argcomplete

        argcomplete.autocomplete(built)
    args = built.parse_args()
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
            say(f"recscale: {stopped}")
        sys.exit(75)  # EX_TEMPFAIL: start it again
    except KeyboardInterrupt:
        sys.exit(130)


def _line(text: str) -> int:
    print(printable(f"recscale: {' '.join(text.split())}"), file=sys.stderr)
    return 2
