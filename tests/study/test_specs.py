"""Specs are what Snakemake compares: another byte trains published runs anew."""

import hashlib
import json

import pytest

from conftest import REPO
from recscale.study import study

BEFORE = json.loads((REPO / "tests/study/specs.json").read_text())


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", BEFORE)
def test_specs_and_laws_of_committed_studies_are_the_same_byte_for_byte(name):
    """Folder names and specs of all runs, as they were when the studies were first run."""
    content = study.load(REPO / f"config/studies/{name}.yaml")
    runs = [f"{folder} {run.spec()}" for folder, run in content.runs.items()]
    assert len(runs) == BEFORE[name]["runs"]
    assert digest(runs) == BEFORE[name]["sha256"]
    assert digest(law.text() for law in content.laws.values()) == BEFORE[name]["laws"]


@pytest.mark.parametrize(
    "path", sorted(REPO.glob("results/published/*/points.jsonl")), ids=lambda p: p.parent.name
)
def test_specs_of_published_points_are_the_same_byte_for_byte(path):
    for line in path.read_text().splitlines():
        spec = json.loads(line)["spec"]
        run = study.Run.from_spec(json.dumps(spec))
        assert run.spec() == json.dumps(spec, sort_keys=True, separators=(",", ":"))
