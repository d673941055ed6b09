"""The resume state of a run on disk: weights, optimizer, progress; checked before it is used.

One safetensors file. Its header says which run, data and version of this format it belongs to, and
a checksum over every tensor: a foreign or damaged file is refused, never loaded.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from recscale import files

FORMAT = 2
Tensors = dict[str, Tensor]


class Unusable(Exception):
    """A checkpoint that cannot be continued from; says why."""


def save(path: Path, header: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint atomically. `header` is plain JSON."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for number, values in state.items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
    write(path, tensors, header)


def resume(path: Path, belongs: dict[str, Any]) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors, if the file is whole and its header has all of `belongs`; else Unusable."""
    header, tensors = read(path)
    for key, value in belongs.items():
        if header.get(key) != value:
            raise Unusable(f"it is of another {key.replace('_', ' ')}")
    return header, tensors


def restore(tensors: Tensors, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the tensors of a checkpoint into model and optimizer. Raises Unusable if they do not fit."""
    parts: dict[str, Tensors] = {"model": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    state: dict[int, Tensors] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    try:
        model.load_state_dict(parts["model"])
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        raise Unusable(str(error)) from error


def write(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """Named tensors and a JSON header, with a checksum, as one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"format": FORMAT, "crc32": _checksum(tensors, header), "header": header}
    with files.atomic(path) as part:  # one key, as safetensors writes several in random order
        safetensors.torch.save_file(tensors, part, metadata={"recscale": json.dumps(about)})


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """What `write` wrote. Raises Unusable for anything else."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("recscale", "{}"))
            if about.get("format") != FORMAT:
                raise Unusable("it is of another version of the format")
            names = file.keys()  # copies: what safetensors gives is the mapped file itself
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise Unusable(" ".join(str(error).split())[:100]) from error
    if about.get("crc32") != _checksum(tensors, about.get("header")):
        raise Unusable("it is damaged: the checksum differs")
    return dict(about["header"]), tensors


def _checksum(tensors: Tensors, header: Any) -> str:
    total = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1).view(torch.uint8) if tensors[name].numel() else tensors[name]
        total = zlib.crc32(flat.numpy().data, zlib.crc32(name.encode(), total))
    return f"{total:08x}"
