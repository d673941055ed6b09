"""What all rules share: the checked config, the study and the paths. The only file with functions.

Imports only what is light: every cluster job reads this file again.
"""

import ast
import json
import shutil
import sys
from functools import cache
from pathlib import Path

from recscale.cluster import attempt as attempts
from recscale.cluster import request
from recscale.errors import InputError
from recscale.laws.names import LAW_RECIPE
from recscale.plan import cost
from recscale.study import schema, study
from recscale.study.run import relative_cost

PACKAGE = Path("src/recscale")


def load_study():
    """The study named in the config; a mistake in either file ends in one line."""
    if type(config.get("study")) is int:
        config["study"] = str(config["study"])  # --config study=2024
    try:
        schema.check(config, "config", "config/config.yaml or --config")
        loaded = study.load(f"config/studies/{config['study']}.yaml")
        study.check_dataset(loaded, Path("config/datasets.yaml"))
    except InputError as error:
        sys.exit(f"recscale: {error}")  # one line, where a WorkflowError prints four
    return loaded


def spec(wildcards):
    """The one param of a training: its canonical JSON."""
    return STUDY.runs[wildcards.run].spec()


def cost_of(wildcards):
    """Large runs start first, so that no core is idle while the largest finishes alone."""
    return relative_cost(STUDY.runs[wildcards.run])


def limits():
    """What the profile allows a job of rule train; without one nothing is limited, and no GPU asked for."""
    given = workflow.resource_settings._parsed_overwrite_resources.get("train", {})
    try:
        return request.Limits.of({key: value.raw for key, value in given.items()})
    except InputError as error:
        sys.exit(f"recscale: {error}")


def counts():
    """The dataset in numbers; None where neither its entry nor a prepared folder tells."""
    entries = schema.read_yaml(Path("config/datasets.yaml"), "datasets")
    try:
        return cost.stated(STUDY.dataset, Path(DATA), entries[STUDY.dataset])
    except InputError:
        return None


def asked(wildcards, input, attempt=1):
    """What the job of a run asks for; not known before its dataset is."""
    data = COUNTS or counts()
    if data is None:
        raise FileNotFoundError(2, "not prepared yet", input.stats)
    run, out = STUDY.runs[wildcards.run], Path(OUT, "runs", wildcards.run)
    kills = attempts.kills(out, run.spec(), again=attempt > 1)
    return request.request(run, data, LIMITS, attempt, kills)


def memory(wildcards, input, attempt):
    return asked(wildcards, input, attempt).mem_mb


def minutes(wildcards, input, attempt):
    return asked(wildcards, input, attempt).minutes


def gpus(wildcards, input):
    """A number for --gpus; none where there is no GPU, or where the cluster wants --gres."""
    return None if LIMITS.gpu_gres else asked(wildcards, input).gpus or None


def gres(wildcards, input):
    number = asked(wildcards, input).gpus if LIMITS.gpu_gres else 0
    return f"{LIMITS.gpu_gres}:{number}" if number else None


def nodes(wildcards, input):
    """One, where several GPUs must be of one node; a group of runs would add up the ones of each."""
    return 1 if asked(wildcards, input).processes > 1 else None


def processes(wildcards, input):
    return asked(wildcards, input).processes


def check_cluster():
    """One line where the profile's scheduler is not there."""
    if workflow.executor_plugin.name == "slurm" and not shutil.which("sbatch"):
        sys.exit(
            "recscale: there is no sbatch on this machine: run this on a login node of the cluster, "
            "or train here with snakemake --cores N"
        )


def failed_runs():
    """A line for each run that failed the same way twice, and where to look for the others."""
    found = {
        name: attempts.failed(Path(OUT, "runs", name), run.spec())
        for name, run in STUDY.runs.items()
    }
    lines = [
        f"recscale: {name}: {attempts.text(why)}" for name, why in found.items() if why
    ]
    more = f"recscale: recscale status {STUDY.name} says where every run stands"
    if workflow.executor_plugin.name == "slurm":
        more += f"; recscale doctor {STUDY.name} looks for what the cluster refuses"
    return [*lines, more]


def entry(*keys):
    """What config/datasets.yaml says of the dataset, as JSON: `keys`, or all that preparing looks at."""
    dataset = schema.read_yaml(Path("config/datasets.yaml"), "datasets")[STUDY.dataset]
    chosen = keys or set(dataset) - {"sources", "title", "terms", "reported"}
    return json.dumps(
        {key: dataset[key] for key in chosen if key in dataset}, sort_keys=True
    )


@cache
def imports(path, lazy):
    """The modules of recscale that a file imports: at once, and with `lazy` in its functions too."""
    tree, found = ast.parse(path.read_text()), set()
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ImportFrom) and node.module.startswith("recscale"):
            folder = PACKAGE.joinpath(*node.module.split(".")[1:])
            names = {folder / f"{name.name}.py" for name in node.names}
            found |= {path for path in names if path.exists()} or {
                folder.with_suffix(".py")
            }
        for_types = (
            isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        )
        if not for_types and (lazy or not isinstance(node, ast.FunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return found


@cache
def code(*roots):
    """The modules that a command loads: of the command line, and `roots` with all that they import.

    An input of each rule that is quickly done again: what its command does follows from these files.
    """
    found, todo = set(), [(PACKAGE / "cli/main.py", False)]
    todo += [(PACKAGE / f"{root}.py", True) for root in roots]
    while todo:
        path, lazy = todo.pop()
        if path not in found:
            found.add(path)
            todo += [(one, lazy) for one in imports(path, lazy)]
    return sorted(map(str, found))


def task_files():
    """The record of every task and run of the study."""
    return [
        f"{OUT}/tasks/{name}/{run}.json"
        for name, task in STUDY.tasks.items()
        for run in study.select(task, STUDY.runs)
    ]


STUDY = load_study()
RESULTS = config["results_dir"]
RAW = config["raw_dir"]
DATA = f"{RESULTS}/data/{STUDY.dataset}"
OUT = f"{RESULTS}/{STUDY.name}"
STUDY_FILE = f"config/studies/{STUDY.name}.yaml"
LIMITS = limits()
COUNTS = counts()
# A job on a node leaves starting again to the controller; on one machine there is no limit of time.
RETRIES = None
if workflow.is_main_process and COUNTS is not None and LIMITS.max_minutes:
    RETRIES = request.retries(STUDY.runs, COUNTS, LIMITS)


wildcard_constraints:
    figure="|".join(re.escape(name) for name in STUDY.figures) or "no figure",
    run="|".join(re.escape(name) for name in STUDY.runs),
