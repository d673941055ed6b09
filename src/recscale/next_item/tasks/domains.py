"""Multi-domain transfer: does a larger model carry over what it knows of a user to another domain?

A test case is `mix` where at least one item of its input, the last max_len items, is of the target's domain,
and `diff` where none is. Nothing is trained for it, and all items are ranked, of whatever domain. Cases
whose target has no domain are left out (LSRM, section V; on Amazon only).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recscale import files
from recscale.errors import InputError
from recscale.next_item.sequences import Ints
from recscale.next_item.tasks.cases import Inputs, Outcome, Trained, before_test, ranked

MIX, DIFF = "mix", "diff"


def domains(trained: Trained) -> Outcome:
    """Cases by mix and diff; no x. Raises InputError where items have no domains."""
    path = trained.data_dir / "items.parquet"
    table = files.read_table(path, "id", "domain").sort_values("id")
    if table["domain"].nunique() < 2:
        raise InputError(
            f"{path}: domain: has {table['domain'].nunique()} values, the task domains needs two or more "
            "(docs/data.md: domains)"
        )
    domain = np.append(0, table["domain"].factorize()[0] + 1)  # 0: none; padding has none
    inputs, target = before_test(trained.data, trained.run.windows.max_len)
    known = np.flatnonzero(domain[target] > 0)
    inputs, target = inputs.take(known), target[known]
    rank, _ = trained.answer(inputs, target)
    return Outcome(ranked(known, np.where(shares(inputs, target, domain), MIX, DIFF), rank))


def shares(inputs: Inputs, target: Ints, domain: Ints) -> npt.NDArray[np.bool_]:
    """Whether any item of each input has the domain of the target; `domain` of ids from 0, 0 for none."""
    same = (domain[inputs.items] == domain[target][:, None]) & inputs.real
    found: npt.NDArray[np.bool_] = same.any(axis=1)
    return found
