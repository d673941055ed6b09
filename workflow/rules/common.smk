"""What all rules share: the checked config, the study and the paths. The only file with functions.

Imports only what is light: every cluster job reads this file again.
"""

import json
import sys
from pathlib import Path

from recscale import schema, study
from recscale.errors import InputError


def load_study():
    """The study named in the config; a mistake in either file ends in one line."""
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


def cost(wildcards):
    """Large runs start first, so that no core is idle while the largest finishes alone."""
    return study.relative_cost(STUDY.runs[wildcards.run])


def entry(*keys):
    """What config/datasets.yaml says of the dataset, as JSON: `keys`, or all that preparing looks at."""
    dataset = schema.read_yaml(Path("config/datasets.yaml"), "datasets")[STUDY.dataset]
    chosen = keys or set(dataset) - {"sources", "title", "terms", "reported"}
    return json.dumps(
        {key: dataset[key] for key in chosen if key in dataset}, sort_keys=True
    )


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


wildcard_constraints:
    figure="|".join(re.escape(name) for name in STUDY.figures) or "no figure",
    run="|".join(re.escape(name) for name in STUDY.runs),
