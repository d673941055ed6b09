import json
import statistics
import subprocess
import sys

import pytest

# One process a cell: peak memory of training steps first, then rounds of steps between two measurements
# of the machine, so that an estimate is made from what the machine did just before and after.
WORKER = """
import json, resource, statistics, sys, tempfile, time
from pathlib import Path
from recscale import measure
settings = json.loads(sys.argv[1])
made = measure.trainer(settings, measure.made_up(settings, 8 * settings["batch"]), Path(tempfile.mkdtemp()), epochs=1000)

def steps(least, seconds):
    times = []
    while len(times) < least or sum(times) < seconds:
        before = time.perf_counter()
        made._step(made.legs[0])
        times.append(time.perf_counter() - before)
    return statistics.median(times)

steps(5, 0)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
from recscale import plan
targets, run, n_items = settings["batch"] * settings["max_len"], made.run, settings["n_items"]

def estimate():
    return plan.step_seconds(plan.here(1), made.how, run, n_items, targets)

ratios, before = [], estimate()
for _ in range(settings["rounds"]):
    measured = steps(1, 0.6)
    after = estimate()
    ratios.append((before + after) / 2 / measured)
    before = after
print(json.dumps({"time": ratios, "step": measured, "peak": peak, "memory": plan.step_bytes(run, n_items, made.how) / peak}))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("batch", [32, 64])
@pytest.mark.parametrize("n_items", [3706, 26744])
@pytest.mark.parametrize(("n_layers", "d_model", "n_heads"), [(2, 64, 2), (4, 128, 4), (12, 256, 8)])
def test_steps_take_what_is_planned(n_layers, d_model, n_heads, n_items, batch, precision):
    """Within 25 % in time and memory, on a CPU; medians of five rounds, of ten where five were not."""
    settings = {
        "n_layers": n_layers, "d_model": d_model, "n_heads": n_heads, "n_items": n_items, "batch": batch,
        "precision": precision, "max_len": 50, "threads": 1, "seed": 1, "rounds": 5,
    }  # fmt: skip
    ratios = []
    for _ in range(2):
        command = [sys.executable, "-c", WORKER, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        ratios += result["time"]
        time = statistics.median(ratios)
        print(
            f"{n_layers}x{d_model} {n_items} {batch} {precision}: step {result['step']:.3f} s, time {time:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), peak {result['peak'] / 2**20:.0f} MiB, memory {result['memory']:.2f}"
        )
        if 0.75 < time < 1.25:
            break
    assert 0.75 < time < 1.25
    assert 0.75 < result["memory"] < 1.25
