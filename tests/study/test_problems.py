"""What study/problems.py says of a problem is what its folder has."""

import pytest

from recscale.errors import InputError
from recscale.next_item.evaluate import METRICS
from recscale.next_item.problem import MODELS
from recscale.next_item.references import references
from recscale.next_item.tasks.point import task_of
from recscale.report.figures import tasks as figures_of_tasks
from recscale.report.figures.study import FIGURES
from recscale.study.problems import NEXT_ITEM, PROBLEMS
from recscale.study.run import INPUTS
from recscale.study.shapes import SHAPES


def test_names_are_those_of_the_folder(ml_1m_data):
    assert tuple(NEXT_ITEM.metrics) == METRICS
    assert list(NEXT_ITEM.tasks) == list(figures_of_tasks.FIGURES)
    assert all(callable(task_of(name)) for name in NEXT_ITEM.tasks)
    with pytest.raises(InputError, match=r"task no_such: study/problems\.py names it"):
        task_of("no_such")
    assert set(NEXT_ITEM.figures) == set(FIGURES)
    assert {NEXT_ITEM.headline, *NEXT_ITEM.shown} <= set(METRICS)
    assert list(references(ml_1m_data)) == list(NEXT_ITEM.references)


def test_every_family_has_a_model_and_every_problem_its_inputs():
    assert set(MODELS) == set(SHAPES)
    assert set(INPUTS) == set(PROBLEMS)
