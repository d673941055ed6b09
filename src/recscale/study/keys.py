"""Keys of a run: each is a field of a part, with its default, what it means and what is legal.

A part is a frozen dataclass whose fields are made by `key` or `needed`. Its JSON schema, by which study
files and specs are checked, follows from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from recscale.errors import InputError

Part = TypeVar("Part")
# JSON's name for the type of a field, without `| None`.
KINDS = {
    "int": "integer", "float": "number", "bool": "boolean", "str": "string", "tuple[int, ...]": "array",
    "tuple[float, ...]": "array", "tuple[str, ...]": "array",
}  # fmt: skip
NUMBERS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float}


def key(default: Any, meaning: str = "", **rules: Any) -> Any:
    """A key with a default. rules: of JSON schema; the type is that of the field unless they give one."""
    return field(default=default, metadata={"description": meaning} | rules)


def needed(meaning: str, **rules: Any) -> Any:
    """A key without a default."""
    return field(metadata={"description": meaning} | rules)


def _kind(one: Field[Any]) -> str:
    """The type of a field as it is written, without `| None`."""
    written = one.type.__name__ if isinstance(one.type, type) else str(one.type)
    return written.removesuffix(" | None")


def names(part: Any) -> list[str]:
    """The keys of a part, in their order."""
    return [one.name for one in fields(part)]


def required(part: Any) -> list[str]:
    """The keys of a part that have no default."""
    return [one.name for one in fields(part) if one.default is MISSING]


def schema(part: Any) -> dict[str, Any]:
    """JSON schema of a part's keys; none of them is required."""
    properties = {}
    for one in fields(part):
        rules = {"type": KINDS[_kind(one)], **one.metadata}
        if one.default not in (MISSING, None):
            rules["default"] = list(one.default) if isinstance(one.default, tuple) else one.default
        properties[one.name] = rules
    return {"type": "object", "properties": properties}


def made(part: type[Part], given: Mapping[str, Any]) -> Part:
    """A part with those of the given keys that are its own; 1 and 1.0 are the same value.

    Raises InputError for a number that is not finite, or a key that is missing.
    """
    values = {}
    for one in fields(part):  # type: ignore[arg-type]
        if one.name not in given:
            if one.default is MISSING:
                raise InputError(f"{one.name}: is missing")
            continue
        value = given[one.name]
        kind = NUMBERS.get(_kind(one))
        if kind is not None and value is not None:
            if not math.isfinite(value):
                raise InputError(f"{one.name}: {value} is not a finite number")
            value = kind(value)
        values[one.name] = value
    return part(**values)
