"""What a run asks of a cluster follows cost.py, and stays within the profile's limits."""

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recscale.cluster import request
from recscale.cluster.request import Limits
from recscale.errors import InputError
from recscale.plan import cost, devices
from runs import run_of

DATA = cost.Counts(6040, 3700, 921_689)
SMALL = run_of("x", 2, 64, 0.01, n_heads=2, epochs=3)
LARGE = run_of("x", 24, 1024, 0.01, n_heads=8, epochs=30, batch_size=512)
A100 = Limits("A100-80GB", max_gpus=8, max_minutes=1440, max_mem_mb=500_000)


def test_a_small_run_on_a_gpu():
    asked = request.request(SMALL, DATA, A100)
    assert (asked.gpus, asked.processes) == (1, 1)
    device = devices.DEVICES["A100-80GB"]
    minutes = cost.run_seconds(device, devices.computed(device, 1, 1, {}), SMALL, DATA) / 60
    assert minutes < asked.minutes <= 2 * minutes + 11
    assert asked.mem_mb > request.LEAST_MB


def test_more_gpus_only_where_one_is_not_enough():
    """Time decides for the large run: the smallest number that ends within the limit."""
    device = devices.DEVICES["A100-80GB"]

    def planned(n):
        seconds = cost.run_seconds(device, devices.computed(device, n, 1, {}), LARGE, DATA)
        return math.ceil(2 * seconds / 60) + 10

    for limit in (planned(1), planned(2), planned(4)):
        limits = dataclasses.replace(A100, max_minutes=limit)
        asked = request.request(LARGE, DATA, limits)
        assert planned(asked.gpus) <= limit
        assert asked.gpus == min(n for n in (1, 2, 4, 8) if planned(n) <= limit)
        assert asked.processes == asked.gpus
    never = request.request(LARGE, DATA, dataclasses.replace(A100, max_minutes=11))
    assert (never.gpus, never.minutes) == (8, 11)
    one = request.request(LARGE, DATA, dataclasses.replace(A100, max_minutes=11, max_gpus=1))
    assert (one.gpus, one.processes) == (1, 1)


def test_memory_decides_too():
    wide = LARGE.but(batch_size=8192, epochs=1)
    device = devices.DEVICES["A100-80GB"]
    bytes_of = {n: cost.run_bytes(wide, DATA, devices.computed(device, n, 1, {})) for n in (1, 2, 4, 8)}
    assert bytes_of[1] > device.memory > bytes_of[8]
    asked = request.request(wide, DATA, dataclasses.replace(A100, max_minutes=10**6))
    assert asked.gpus == min(n for n, size in bytes_of.items() if size <= device.memory)


def test_without_gpus_the_whole_memory_is_asked_for():
    asked = request.request(SMALL, DATA, Limits())
    assert (asked.gpus, asked.processes) == (0, 1)
    needs = cost.run_bytes(SMALL, DATA, devices.computed(request.CORE, 1, 1, {}))
    assert asked.mem_mb * 1e6 > 1.2 * needs


@given(
    epochs=st.integers(1, 100),
    attempt=st.integers(1, 9),
    kills=st.integers(0, 5),
    gpus=st.integers(0, 8),
    minutes=st.integers(0, 3000),
    memory=st.integers(0, 10**6),
)
def test_limits_hold_and_more_attempts_ask_for_no_less(epochs, attempt, kills, gpus, minutes, memory):
    run = SMALL.but(epochs=epochs)
    limits = Limits("H100" if gpus else "core", gpus, minutes, memory)
    asked = request.request(run, DATA, limits, attempt, kills)
    assert asked.gpus <= gpus
    assert 0 < asked.minutes <= (minutes or math.inf)
    assert request.LEAST_MB <= asked.mem_mb <= max(memory or math.inf, request.LEAST_MB)
    later = request.request(run, DATA, limits, attempt + 1, kills)
    assert later.minutes >= asked.minutes
    assert later.mem_mb == asked.mem_mb  # a 75 alone asks for no more memory
    assert request.request(run, DATA, limits, attempt, kills + 1).mem_mb >= asked.mem_mb


def test_retries_cover_the_planned_minutes():
    limits = Limits(max_minutes=30)
    planned = request.request(SMALL, DATA, limits).planned
    assert request.retries({"a": SMALL}, DATA, limits) == math.ceil(planned / 30) + 2
    assert request.retries({"a": SMALL}, DATA, Limits()) == 2


def test_a_wrong_limit_is_one_line():
    with pytest.raises(InputError, match="device: H1000 is not one of A100-80GB, H100, H200, core"):
        Limits.of({"device": "H1000", "slurm_partition": "gpu"})
    with pytest.raises(InputError, match="max_minutes: 24h is not a whole number"):
        Limits.of({"max_minutes": "24h"})


def test_a_limit_that_the_signal_uses_up_is_one_line():
    """Such jobs would be requeued for ever."""
    given = {"max_gpus": 1, "slurm_extra": "--qos=low --signal=B:TERM@120"}
    assert Limits.of(given | {"max_minutes": 3}).max_minutes == 3
    assert Limits.of(given | {"max_minutes": 0}).max_minutes == 0
    said = "max_minutes: 2 leaves less than 60 s until the signal of slurm_extra, 120 s before the end"
    with pytest.raises(InputError, match=said):
        Limits.of(given | {"max_minutes": 2})


def test_a_part_of_a_profile_is_one_line():
    """`--set-resources train:slurm_partition=a100` alone would lose its GPUs and its limits."""
    for part in ({"slurm_partition": "a100"}, {"max_minutes": 60}):
        with pytest.raises(InputError, match="without max_gpus: --set-resources replaces all"):
            Limits.of(part)
    assert Limits.of({}) == Limits.of({"mem_mb": 3000, "runtime": 60}) == Limits()
    assert Limits.of({"max_gpus": 0, "slurm_partition": "cpu"}) == Limits()


def test_what_snakemake_imports_is_light():
    """Every job of a cluster reads the rules again."""
    code = (
        "import sys; from recscale.cluster import attempt, request; from recscale.plan import cost;"
        "from recscale.study import schema, study;"
        "print({'torch', 'pandas', 'numpy', 'polars', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
