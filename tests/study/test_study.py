import dataclasses
import json
import re

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import REPO
from recscale.errors import InputError
from recscale.next_item.models.decoder import Decoder
from recscale.study import keys, shapes, study
from recscale.study import run as run_module
from recscale.study.run import Run, relative_cost, training_flops
from runs import run_of

STUDIES = sorted((REPO / "config/studies").glob("*.yaml"))
GOOD = {
    "title": "t",
    "dataset": "ml-1m",
    "run": {"epochs": 2},
    "sizes": {"1x8": {"learning_rate": 0.01}, "2x16": {"learning_rate": 0.02, "n_heads": 2}},
    "grid": [{"sizes": "all"}, {"sizes": ["1x8"], "seed": [2, 3], "data_fraction": 0.5}],
    "laws": {"loss_vs_N": {"x": "N", "where": {"data_fraction": 1, "seed": 1}, "hold_out": 1}},
}
JOINT = {"form": "hoffmann", "x": {"N": "N", "D": "D"}}


def write(tmp_path, content):
    path = tmp_path / "s.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_grid_crosses_sizes_and_lists(tmp_path):
    loaded = study.load(write(tmp_path, GOOD))
    assert [(r.size, r.course.epochs, r.sample.data_fraction, r.seed) for r in loaded.runs.values()] == [
        ("1x8", 2, 1.0, 1),
        ("2x16", 2, 1.0, 1),
        ("1x8", 2, 0.5, 2),
        ("1x8", 2, 0.5, 3),
    ]
    assert [loaded.runs[name].size for name in study.select(loaded.laws["loss_vs_N"], loaded.runs)] == [
        "1x8",
        "2x16",
    ]


def test_a_list_in_where_takes_each_of_its_values(tmp_path):
    laws = {"a": {"x": "D", "where": {"size": "1x8", "data_fraction": [1, 0.5], "seed": [1, 2]}}}
    loaded = study.load(write(tmp_path, GOOD | {"laws": laws}))
    chosen = [loaded.runs[name] for name in study.select(loaded.laws["a"], loaded.runs)]
    assert [(r.size, r.sample.data_fraction, r.seed) for r in chosen] == [("1x8", 1.0, 1), ("1x8", 0.5, 2)]


def test_order_of_keys_and_spelling_of_numbers_do_not_change_a_spec(tmp_path):
    other = dict(reversed(GOOD.items())) | {
        "sizes": {"2x16": {"n_heads": 2, "learning_rate": 2.0e-2}, "1x8": {"learning_rate": 0.0100}},
        "run": {"epochs": 2, "dropout": 0.1},  # a default written out
    }
    specs = [
        {run.spec() for run in study.load(write(tmp_path, content)).runs.values()}
        for content in (GOOD, other)
    ]
    assert specs[0] == specs[1]


KEYS = list(run_of("x", 1, 8, 0.1).flat())
runs = st.builds(
    Run.of,
    dataset=st.sampled_from(["ml-1m", "x"]),
    n_layers=st.integers(1, 48),
    d_model=st.integers(1, 100).map(lambda n: 4 * n),
    learning_rate=st.floats(1e-6, 1),
    n_heads=st.sampled_from([1, 2, 4]),
    dropout=st.floats(0, 0.9),
    epochs=st.integers(1, 30),
    data_fraction=st.sampled_from([1, 0.5, 0.1]),
    seed=st.integers(0, 9),
)


@given(runs)
def test_a_spec_is_canonical_and_comes_back(run):
    assert Run.from_spec(run.spec()) == run
    spec = json.loads(run.spec())
    assert run.spec() == json.dumps(spec, sort_keys=True, separators=(",", ":"))
    assert "recipe" in spec
    assert re.fullmatch(r"[A-Za-z0-9_.+-]+", run.name())


@given(runs, st.sampled_from([key for key in KEYS if key not in ("model", "problem")]))
def test_every_key_is_in_the_spec(run, key):
    others = {"n_heads": (1, 2), "stride": (7, 8), "dropout": (0.25, 0.5), "warmup": (0.2, 0.3)}
    others |= {"dataset": ("y", "z"), "data_fraction": (0.2, 0.3), "max_len": (60, 70)}
    others |= {"dropout_last": (0.25,), "dropout_embedding": (0.25,), "cooldown": (0.3,)}
    others |= {"schedule": ("constant",), "test_epochs": ((1,),), "decoupled_decay": (True,)}
    others |= {"data_axis": ("time",), "data_seed": (7,)}
    changed = {key: next(v for v in others.get(key, (400, 800)) if v != run.flat()[key])}
    if key.startswith("switch"):  # one needs the other
        changed = {"switch_patience": 3, "switch_learning_rate": 0.1} | changed
    if key in ("data_axis", "data_seed"):  # of less than all the data
        run = run.but(data_fraction=0.5)
    other = run.but(**changed)
    assert other.spec() != run.spec()
    assert Run.from_spec(other.spec()) == other
    assert other.name() != run.name() or key in ("dataset", "recipe", "n_heads")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"epoch": 2}}, r"s\.yaml: run: .*'epoch' was unexpected.*legal: .*epochs"),
        ({"run": {"learning_rate": "1e-3"}}, r"run\.learning_rate: '1e-3' is not.*write 0\.001"),
        ({"sizes": {"1x8": {"learning_rate": -1}}}, r"sizes\.1x8\.learning_rate: -1 is less than"),
        ({"sizes": {"big": {}}, "grid": [{}]}, r"sizes\.big: states no n_layers, d_model"),
        ({"sizes": {"b/g": {}}}, r"sizes: 'b/g' does not match"),
        (
            {"sizes": {"1x8": {"n_layers": 2}}, "grid": [{}]},
            r"sizes\.1x8: n_layers: 2 is not that of its name",
        ),
        ({"problem": "click"}, r"problem: 'click' is not one of \['next_item'\]"),
        ({"run": {"model": "no_such"}}, r"run\.model: 'no_such' is not one of \['decoder'\]"),
        ({"sizes": {"1x8": {}}, "grid": [{}]}, r"sizes\.1x8\.learning_rate: is missing"),
        ({"grid": [{"sizes": ["9x9"]}]}, r"grid\.0\.sizes: 9x9 is not one of 1x8, 2x16"),
        ({"grid": [{"seeds": [1]}]}, r"grid\.0: .*'seeds' was unexpected.*legal: .*seed"),
        (
            {"run": {"n_heads": 3}, "grid": [{"sizes": ["1x8"]}]},
            r"1x8: n_heads: 3 does not divide the width 8",
        ),
        (
            {"laws": {"a": {"x": "n"}}},
            r"laws\.a\.x: 'n' is not one of \['N', 'N_total', 'D', 'D_se",
        ),
        ({"laws": {"a": {"x": "N", "where": {"size": "3x3"}}}}, r"laws\.a\.where: selects none"),
        (
            {"laws": {"a": {"x": "N", "where": {"data_fraction": 1, "size": ["1x8", "3x3"]}}}},
            r"laws\.a\.where\.size: 3x3 selects none",
        ),
        ({"laws": {"a": {"x": "N", "where": {"size": []}}}}, r"size: \[\] (is too short|should be)"),
        ({"run": {"seed": 1.5}}, r"seed: 1\.5 is not of type 'integer'"),
        ({"run": {"epochs": True}}, r"epochs: True is not of type 'integer'"),
        ({"run": {"dropout": float("nan")}}, r"dropout: nan is not a finite number"),
        ({"grid": [{"learning_rate": float("inf")}]}, "learning_rate: inf is not a finite number"),
        ({"grid": [{"seed": -1}]}, r"grid\.0 \(1x8\): seed: -1 is less than the minimum of 0"),
        ({"grid": [{"data_fraction": [0.5, 2]}]}, r"data_fraction: 2 is greater than the maximum"),
        ({"grid": [{"epochs": 0}]}, r"epochs: 0 is less than the minimum of 1"),
        ({"grid": [{"n_heads": 0}]}, r"n_heads: 0 is less than the minimum of 1"),
        ({"grid": [{"learning_rate": "fast"}]}, r"learning_rate: 'fast' is not of type 'number'"),
        ({"grid": [{"seed": []}]}, r"grid\.0: an empty list gives no run"),
        ({"laws": {"a": {"x": "N"}}}, r"laws\.a\.where: mixes data_fraction 0\.5, 1\.0; name one"),
        ({"laws": {"a": {"x": "N", "where": {"colour": 1}}}}, r"colour is not one of size, dataset"),
        (
            {"laws": {"a": {"x": "N", "where": {"data_fraction": 1}, "hold_out": 9}}},
            r"laws\.a\.hold_out: 9 of 2 N leaves none",
        ),
        (
            {"laws": {"a": {"x": "N", "form": "cubic"}}},
            r"laws\.a\.form: cubic is not one of saturating_power, power_constant",
        ),
        (
            {"laws": {"a": {"x": "N", "form": "hoffmann"}}},
            r"laws\.a\.x: hoffmann, L\(N, D\) = .*, needs a column for each of N, D",
        ),
        ({"laws": {"a": {"x": {"N": "N", "D": "E"}}}}, r"laws\.a\.x\.D: 'E' is not one of"),
        (
            {"laws": {"a": {"x": "N", "y": "HR@10"}}},
            r"laws\.a\.form: saturating_power is none for HR@10; legal: log_linear, sigmoid, ceiling",
        ),
        ({"laws": {"a": {"x": "N", "form": "sigmoid"}}}, r"sigmoid is none for test_loss; legal: satur"),
        ({"laws": {"a": JOINT | {"hold_out": {"U": 1}}}}, r"laws\.a\.hold_out: U is not one of N, D"),
        ({"laws": {"a": JOINT | {"hold_out": {"D": 2}}}}, r"laws\.a\.hold_out: 2 of 2 D leaves none"),
        ({"laws": {"a": JOINT}, "grid": [{"epochs": [1, 2]}]}, r"laws\.a\.where: mixes epochs 1, 2"),
        (
            {"grid": [{"learning_rate": [0.1, 0.2]}], "laws": {"a": {"x": "N"}}},
            r"laws\.a\.where: mixes learning_rate 0\.1, 0\.2 of 1x8",
        ),
        ({"dataset": 5}, r"dataset: 5 is not of type 'string'"),
        ({"figures": ["pie"]}, r"figures\.0: 'pie' is not one of"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_is_legal(tmp_path, change, message):
    path = write(tmp_path, GOOD | change)
    with pytest.raises(InputError, match=message) as caught:
        study.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [2024, False])
def test_a_name_that_is_no_text_to_yaml_is_told_so(tmp_path, name):
    with pytest.raises(InputError, match=f"dataset: {name} is not of type 'string'.*write it in quotes"):
        study.load(write(tmp_path, GOOD | {"dataset": name}))


def test_not_yaml_and_no_file(tmp_path):
    with pytest.raises(InputError, match="is not YAML"):
        study.load(write(tmp_path, "title: [\nx: 1"))
    with pytest.raises(InputError, match=r"is not YAML.*: title is given twice"):
        study.load(write(tmp_path, "title: a\ntitle: b\n"))
    with pytest.raises(InputError, match="off is no text as a key: write 'off', in quotes"):
        study.load(write(tmp_path, "title: a\nsizes: {off: {}}\n"))
    with pytest.raises(InputError, match="2024: is no text to YAML: write '2024', in quotes"):
        study.load(write(tmp_path, "2024: a\n"))
    (tmp_path / "s.yaml").write_bytes("title: é".encode("latin-1"))
    with pytest.raises(InputError, match="is not YAML in UTF-8"):
        study.load(tmp_path / "s.yaml")
    with pytest.raises(InputError, match=r"there is no such file; .* has s"):
        study.load(tmp_path / "t.yaml")


def test_two_runs_on_one_folder_are_an_error(tmp_path):
    grid = [{"sizes": ["1x8"], "learning_rate": [0.01, 0.01000000001]}]
    with pytest.raises(InputError, match="two runs share the folder"):
        study.load(write(tmp_path, GOOD | {"grid": grid}))


def test_unknown_dataset(tmp_path):
    loaded = study.load(write(tmp_path, GOOD | {"dataset": "ml-2m"}))
    with pytest.raises(InputError, match=r"ml-2m is not one of ml-1m"):
        study.check_dataset(loaded, REPO / "config/datasets.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_committed_studies_are_valid(path):
    loaded = study.load(path)
    study.check_dataset(loaded, REPO / "config/datasets.yaml")


def test_a_study_file_may_set_every_key_of_a_run_and_lists_of_it():
    rules = study.study_rules()
    legal = set(KEYS) - {"dataset", "problem", "recipe"}  # elsewhere in the file, or not a user's
    assert set(rules["$defs"]["run"]["properties"]) == legal
    assert set(rules["properties"]["grid"]["items"]["properties"]) == legal | {"sizes"}
    run = run_of("x", 1, 8, 0.1).flat()
    for key, schema in rules["$defs"]["run"]["properties"].items():
        assert schema.get("default") in (None, run[key], list(run[key]) if key == "test_epochs" else None)


def test_sizes_of_any_name_state_their_keys(tmp_path):
    content = {
        "sizes": {"small": {"n_layers": 1, "d_model": 8}, "wide": {"n_layers": 1}, "2x16": {}},
        "run": {"learning_rate": 0.1},
        "grid": [{"sizes": ["small", "2x16"]}, {"sizes": ["wide"], "d_model": [24, 32]}],
        "laws": {"a": {"x": "N", "where": {"size": ["small", "wide"]}}},
        "tasks": {"long_tail": {"where": {"size": "small"}}},
    }
    loaded = study.load(write(tmp_path, GOOD | content))
    assert [run.size for run in loaded.runs.values()] == ["1x8", "2x16", "1x24", "1x32"]
    chosen = [loaded.runs[name].size for name in study.select(loaded.laws["a"], loaded.runs)]
    assert chosen == ["1x8", "1x24", "1x32"]
    task = loaded.tasks["long_tail"]
    assert [loaded.runs[name].size for name in study.select(task, loaded.runs)] == ["1x8"]


def test_sizes_of_one_label_are_told_apart(tmp_path):
    shape = {"n_layers": 1, "d_model": 8}
    sizes = {"a": shape | {"dropout": 0.1}, "b": shape | {"dropout": 0.3}, "unused": shape, "1x16": {}}
    content = {"sizes": sizes, "grid": [{"sizes": ["a", "b", "1x16"]}], "laws": {}}
    content["run"] = {"learning_rate": 0.1}

    def chosen(size):
        loaded = study.load(
            write(tmp_path, GOOD | content | {"tasks": {"long_tail": {"where": {"size": size}}}})
        )
        found = study.select(loaded.tasks["long_tail"], loaded.runs)
        return [(loaded.runs[name].size, loaded.runs[name].flat()["dropout"]) for name in found]

    assert chosen("b") == [("1x8", 0.3)]
    assert chosen(["a", "1x16"]) == [("1x8", 0.1), ("1x16", 0.1)]
    with pytest.raises(InputError, match=r"tasks\.long_tail\.where\.size: unused has no runs in the grid"):
        chosen(["unused", "a"])
    with pytest.raises(InputError, match=r"where\.size: c is not one of 1x16, a, b, unused"):
        chosen(["c", "a"])
    content["sizes"]["b"] = sizes["a"]
    with pytest.raises(InputError, match="sizes: a and b give the same run 1x8-e1"):
        chosen("a")


@pytest.mark.parametrize("name", [12, 1.5, None])
def test_a_size_whose_name_is_no_text_to_yaml(tmp_path, name):
    with pytest.raises(InputError, match=r"sizes: .* is not of type 'string'.*write it in quotes"):
        study.load(write(tmp_path, GOOD | {"sizes": {name: {"learning_rate": 0.1}}}))


def test_a_key_of_another_family_is_refused_by_name_with_the_legal_ones(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Recurrent:
        d_model: int = keys.needed("width", minimum=1)
        dropout: float = keys.key(0.0, "of the states", minimum=0, maximum=0.5)
        bits: int | None = keys.key(None, "of a state")
        SIZE = ("d_model",)
        label = property(lambda self: f"gru{self.d_model}")
        n = property(lambda self: 6 * self.d_model**2)

        def check(self):
            pass

    monkeypatch.setitem(shapes.SHAPES, "gru", Recurrent)
    for one in (study.study_rules, run_module.rules, run_module._defaults):
        one.cache_clear()
    # The schema of the key itself was made when the module was read.
    monkeypatch.setattr(
        run_module.Whole.__dataclass_fields__["model"], "metadata", {"enum": ["decoder", "gru"]}
    )
    content = {"sizes": {"a": {"model": "gru", "d_model": 8}, "1x8": {}}, "laws": {}, "grid": [{}]}
    content["run"] = {"learning_rate": 0.1}
    loaded = study.load(write(tmp_path, GOOD | content))
    assert set(loaded.runs) == {"gru8-e1-lr0.1-f1-s1-modelgru", "1x8-e1-lr0.1-f1-s1"}
    assert json.loads(loaded.runs["gru8-e1-lr0.1-f1-s1-modelgru"].spec())["model"] == "gru"
    for run in loaded.runs.values():
        assert Run.from_spec(run.spec()) == run
    content["run"]["n_heads"] = 2
    message = r"grid\.0 \(a\), model gru: .*'n_heads' was unexpected.*legal: .*d_model, .*model, .*stride"
    with pytest.raises(InputError, match=message):
        study.load(write(tmp_path, GOOD | content))
    # A key that both have is checked by the rule of each; a size called as a decoder's stands for its runs.
    content["run"] = {"learning_rate": 0.1}
    content["sizes"] = {"a": {"model": "gru", "d_model": 8, "bits": 8}, "1x8": {"dropout": 0.7}}
    content["sizes"]["2x8"] = {"model": "gru", "d_model": 16}
    content["tasks"] = {"long_tail": {"where": {"size": "2x8"}}}
    loaded = study.load(write(tmp_path, GOOD | content))
    assert [run.size for run in loaded.runs.values()] == ["1x8", "gru16", "gru8"]
    assert [loaded.runs[name].size for name in study.select(loaded.tasks["long_tail"], loaded.runs)] == [
        "gru16"
    ]
    content["sizes"]["a"]["dropout"] = 0.7
    with pytest.raises(InputError, match=r"model gru: dropout: 0\.7 is greater than the maximum"):
        study.load(write(tmp_path, GOOD | content))
    content["grid"] = [{"model": ["nope"]}]
    with pytest.raises(InputError, match=r"grid\.0 \(1x8\): model: nope is not one of decoder, gru"):
        study.load(write(tmp_path, GOOD | content))
    for one in (study.study_rules, run_module.rules, run_module._defaults):
        one.cache_clear()


AXES = {
    "run": {"epochs": 2, "stride": 1},
    "sizes": {"1x8": {"learning_rate": 0.01}},
    "grid": [{}, {"data_axis": ["users", "history", "time"], "data_fraction": [0.1, 0.5]}],
    "laws": {},
}


def test_the_axes_of_the_data_have_folders_of_their_own(tmp_path):
    loaded = study.load(write(tmp_path, GOOD | AXES))
    assert len(loaded.runs) == 7
    assert "1x8-e2-lr0.01-f0.5-s1-stride1-data_axistime" in loaded.runs
    seeds = [{}, {"data_fraction": 0.5, "data_seed": [0, 1, 2]}]
    assert len(study.load(write(tmp_path, GOOD | AXES | {"grid": seeds})).runs) == 4


@pytest.mark.parametrize(
    ("law", "fractions"),
    [
        ({"x": "D", "where": {"data_axis": "users"}}, [1.0, 0.1, 0.5]),  # all the data ends every axis
        ({"x": "D", "where": {"data_axis": "time"}}, [1.0, 0.1, 0.5]),
        ({"x": "N", "where": {"data_axis": "history", "data_fraction": 0.5}}, [0.5]),
        ({"x": "N", "where": {"data_axis": "history", "data_fraction": 1}}, [1.0]),
    ],
)
def test_a_law_is_of_one_axis_and_of_all_the_data(tmp_path, law, fractions):
    loaded = study.load(write(tmp_path, GOOD | AXES | {"laws": {"a": law}}))
    chosen = [loaded.runs[name] for name in study.select(loaded.laws["a"], loaded.runs)]
    assert [run.sample.data_fraction for run in chosen] == fractions
    assert {run.sample.data_axis for run in chosen if run.sample.data_fraction < 1} <= {
        law["where"]["data_axis"]
    }


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ({"x": "D"}, r"laws\.a\.where: x: D is the same in all runs of data_axis history, .*users or time"),
        ({"x": "D", "where": {"data_axis": "history"}}, "D is the same in all runs of data_axis history"),
        ({"x": "N", "where": {"data_fraction": 0.5}}, "mixes data_axis history, time, users; name one"),
        ({"x": "N", "where": {"data_axis": "time"}}, r"mixes data_fraction 0\.1, 0\.5, 1\.0"),
        ({"x": "D", "where": {"data_axis": "tmie"}}, "tmie is not one of users, history, time"),
    ],
)
def test_a_law_that_would_mix_axes_is_refused(tmp_path, law, message):
    with pytest.raises(InputError, match=message) as caught:
        study.load(write(tmp_path, GOOD | AXES | {"laws": {"a": law}}))
    assert "\n" not in str(caught.value)


def test_a_law_in_d_takes_several_samples_but_not_two_axes(tmp_path):
    grid = [{}, {"data_fraction": [0.1, 0.5], "data_seed": [0, 1]}]
    content = GOOD | AXES | {"grid": grid, "laws": {"a": {"x": "D", "hold_out": 1}}}
    loaded = study.load(write(tmp_path, content))
    assert len(study.select(loaded.laws["a"], loaded.runs)) == 5
    grid.append({"data_axis": "time", "data_fraction": 0.5})
    with pytest.raises(InputError, match="mixes data_axis time, users; name one of them"):
        study.load(write(tmp_path, content))


def test_a_cut_history_costs_less_a_target_and_has_as_many():
    full = run_of("x", 2, 64, 0.1, stride=1)
    users, half = (full.but(data_fraction=0.5, data_axis=a) for a in ("users", "history"))
    assert (full.context, users.context, half.context) == (50, 50, 25)
    assert half.but(data_fraction=0.07, max_len=100).context == 7
    assert relative_cost(users) == relative_cost(full) // 2
    assert relative_cost(users) < relative_cost(half) < relative_cost(full)
    # Attention over 25 positions instead of 50: 12 layers width 25 fewer FLOPs a position.
    saved = training_flops(full, 9, 10, 3) - training_flops(half, 9, 10, 3)
    assert saved == 10 * 12 * 2 * 64 * 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_axis": "time"}, "data_axis: time needs a data_fraction below 1.*is of axis users"),
        ({"data_axis": "history", "data_fraction": 0.5}, "data_axis: history needs stride: 1, not 50"),
        ({"data_axis": "items", "data_fraction": 0.5}, "'items' is not one of"),
        ({"data_seed": 1}, "data_seed: 1 draws a sample of users"),
        ({"data_seed": 1, "data_axis": "time", "data_fraction": 0.5}, "needs data_axis: users"),
        ({"test_epochs": (1, 3)}, "test_epochs: 3 is above epochs=2"),
        ({"switch_patience": 2}, "switch to SGD needs both"),
        ({"schedule": "linear"}, "'linear' is not one of"),
        ({"learning_rate": {"base": 1, "width": 2, "power": 0}}, "a run has a number"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(change, message):
    with pytest.raises(InputError, match=message):
        run_of("x", 1, 8, 0.01, epochs=2).but(**change)


@pytest.mark.parametrize(
    "change", [{"test_epochs": 5}, {"test_epochs": ["a", 1]}, {"test_epochs": [[1]]}, {"test_epochs": None},
               {"dropout": None}, {"learning_rate": None}, {"schedule": 3}],
)  # fmt: skip
def test_a_bad_value_in_a_spec_is_one_line(change):
    spec = {"dataset": "x", "n_layers": 1, "d_model": 8, "learning_rate": 0.1} | change
    with pytest.raises(InputError, match=next(iter(change))):
        Run.from_spec(json.dumps(spec))


def test_a_rate_by_rule_falls_with_the_width(tmp_path):
    rule = {"base": 0.02, "width": 8, "power": -0.5}
    content = GOOD | {
        "run": {"epochs": 2, "learning_rate": rule},
        "sizes": {"1x8": {}, "2x16": {}, "1x32": {}},
    }
    rates = {run.size: run.course.learning_rate for run in study.load(write(tmp_path, content)).runs.values()}
    assert rates == {"1x8": 0.02, "2x16": 0.014, "1x32": 0.01}


def test_n_is_the_papers():
    """The sizes of LSRM's table, to the digit."""
    sizes = [(2, 64), (4, 128), (8, 128), (12, 256), (24, 512), (48, 1200)]
    published = [98304, 786432, 1572864, 9437184, 75497472, 829440000]
    assert [shapes.Decoder(*size).n for size in sizes] == published


@given(st.integers(1, 3), st.integers(1, 8), st.integers(1, 60), st.integers(1, 60))
def test_counts_are_the_models(n_layers, d_model, n_items, max_len):
    model = Decoder(n_items, n_layers, d_model, 1, max_len, 0.1)
    assert model.counts() == {
        "N": shapes.Decoder(n_layers, d_model).n,
        "N_total": shapes.Decoder(n_layers, d_model).n_total(n_items, max_len),
    }


def test_training_flops_are_what_torch_counts():
    """Oracle: PyTorch's own FLOP counter over one forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    run = run_of("x", 3, 16, 0.1, n_heads=2, max_len=10, stride=10)
    model, batch, n_items = Decoder(40, 3, 16, 2, 10, 0.0), 4, 40
    with FlopCounterMode(display=False) as counter:
        hidden = model(torch.randint(1, 41, (batch, 10)))
        (hidden @ model.output.T).sum().backward()
    counted = training_flops(run, n_items, positions=batch * 10, targets=batch * 10)
    assert counter.get_total_flops() == counted


def test_whole_numbers_written_as_floats_are_the_same_run():
    assert run_of("x", 1, 8, 1, epochs=2.0, seed=3.0) == run_of("x", 1, 8, 1.0, epochs=2, seed=3)
    assert run_of("x", 1, 8, 1, epochs=2.0).name() == "1x8-e2-lr1-f1-s1"


def test_a_study_cannot_take_a_folder_of_results(tmp_path):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(InputError, match="cannot be named data"):
        study.load(tmp_path / "data.yaml")


def test_a_law_of_two_axes_takes_runs_of_all_sizes_and_all_data(tmp_path):
    seen = JOINT | {"x": {"N": "N", "D": "D_seen"}, "hold_out": {"N": 1}}
    content = GOOD | {"laws": {"joint": seen}, "grid": [{"epochs": [1, 2], "data_fraction": [0.5, 1]}]}
    loaded = study.load(write(tmp_path, content))
    law = loaded.laws["joint"]
    assert len(study.select(law, loaded.runs)) == 8
    assert (law.columns, law.hold_out) == ("N, D_seen", {"N": 1})
    assert loaded.figures == ("fit_joint",)
