"""Files a user writes, checked against recscale/study/schemas: a mistake is one line with file and key."""

from __future__ import annotations

import json
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import yaml

from recscale.errors import InputError

SCHEMAS = Path(__file__).resolve().parent / "schemas"
MOST = 100_000  # values of a file
LONGEST = 18  # digits of a whole number: all of them fit into 64 bits


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which a key given twice is an error: the earlier value would be lost silently.

    Dates stay text, as in JSON: schemas know no dates. Aliases are read up to MOST values, for a few
    lines of them are a file of any length; whole numbers that no computer counts to are refused.
    """

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MOST:
            odd = f"its aliases stand for more than {MOST:,} values: write out what is meant"
            raise yaml.composer.ComposerError(None, None, odd, node.start_mark)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > LONGEST:
            odd = f"a whole number of {len(node.value)} digits"
            raise yaml.constructor.ConstructorError(None, None, odd, node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (written, _), key in zip(node.value, keys, strict=True):
            if isinstance(key, bool):
                odd = f"{written.value} is no text as a key: write '{written.value}', in quotes"
                raise yaml.constructor.ConstructorError(None, None, odd, node.start_mark)
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for, aliases followed; infinite where one is in itself."""
    if id(node) not in known:
        known[id(node)] = inf
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_size(one, known) for one in flat)
    return known[id(node)]


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path, rules: str | dict[str, Any]) -> dict[str, Any]:
    """A YAML file that satisfies a schema: one of schemas/ by its name, or a whole one. Raises InputError."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InputError(
                f"{path}: there is no such file: this needs the folder of a workflow, as a clone has it"
            ) from None
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "no files"
        raise InputError(f"{path}: there is no such file; {path.parent}/ has {known}") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML in UTF-8: {' '.join(str(error).split())}") from error
    for key in content if isinstance(content, dict) else ():
        if not isinstance(key, str):
            written = "null" if key is None else key
            raise InputError(f"{path}: {written}: is no text to YAML: write '{written}', in quotes")
    check(content, rules, str(path))
    return dict(content)


def check(content: Any, rules_: str | dict[str, Any], where: str) -> None:
    """Raise InputError, beginning with `where`, unless `content` satisfies the schema, by name or whole."""
    validator = _validator(rules_ if isinstance(rules_, str) else json.dumps(rules_, sort_keys=True))
    errors = list(validator.iter_errors(content))
    # A key whose value is wrong counts as unevaluated too; what is wrong with it says more.
    told = [error for error in errors if error.validator != "unevaluatedProperties"] or errors
    error = jsonschema.exceptions.best_match(told)
    if error is not None:
        raise InputError(f"{where}: {_explain(error)}")


@cache
def rules(name: str) -> dict[str, Any]:
    """schemas/<name>.schema.yaml."""
    return dict(yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8")))


@cache
def _validator(text: str) -> Any:
    """Of a schema's name, or of its JSON."""
    return jsonschema.Draft202012Validator(json.loads(text) if text.startswith("{") else rules(text))


def _explain(error: Any) -> str:
    """Which key, what is wrong, what is legal."""
    key = ".".join(str(part) for part in error.absolute_path)
    text = f"{key}: {error.message}" if key else str(error.message)
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        text = text.replace("Unevaluated properties", "Additional properties")
        parts = [error.schema, *error.schema.get("allOf", ())]
        legal = sorted({name for part in parts for name in part.get("properties", {})})
        pattern = error.schema.get("propertyNames", {}).get("pattern")
        legal += [f"names like {pattern}"] if pattern else []
        return f"{text}; legal: {', '.join(legal)}"
    if error.validator == "type" and isinstance(error.instance, str) and "number" in error.schema["type"]:
        text += " (YAML reads 1e-3 as text: write 0.001)"
    if error.validator == "type" and error.schema["type"] == "string":
        text += " (YAML reads 2024 as a number and off as false: write it in quotes)"
    meaning = error.schema.get("description")
    return f"{text}; {meaning}" if meaning and error.validator != "required" else text
