"""A first step that is given: a trained network in a file, taken in place of training step 0.

The file is a first step of another results folder (`densecl first export`), weights of a run (`RUN/weights`), or any
state dict of torch or safetensors file whose names and classes a map, a file of TOML, explains.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import DataError, SettingError
from densecl.files import expanded
from densecl.models.network import Network
from densecl.models.weights import read_weights_file
from densecl.settings.recipe import GivenFirst, Settings, build
from densecl.tensors import is_safetensors, load_safetensors, read_tensors

HEADS = "heads."  # names of the outputs in a network
OTHERS = "is it of this benchmark and backbone? see `densecl run --help`, --first-map"
LOWEST = 0.01  # mean IoU of base classes; a network that does not know them is below


class FirstMap(Settings):
    """Names and classes of a file of another code base, told in terms of the network here."""

    names: dict[str, str] = Field(default={})  # beginnings of names in the file -> those in the network here
    classes: tuple[str, ...] = ()  # of the file's outputs, in their order; "background" is output 0 here
    fresh: tuple[str, ...] = ()  # beginnings of names here that the file lacks: they stay as they are made


class Given(NamedTuple):
    """A file with a first step, and its map."""

    path: Path
    mapped: FirstMap
    settings: GivenFirst  # for the record


def given(path: Path, map_path: Path | None = None) -> Given:
    """Find the file, read the map, and take the SHA-256 of both; DataError or SettingError if that cannot be."""
    path = expanded(path)
    try:
        digest = hashlib.sha256(path.read_bytes())
    except OSError as error:
        raise DataError(f"--first {path}: {error.strerror}", "name a file of weights") from error
    mapped = FirstMap()
    if map_path is not None:
        try:
            text = expanded(map_path).read_text(encoding="utf-8-sig")
            mapped = build(FirstMap, tomllib.loads(text))
        except (OSError, ValueError) as error:
            raise SettingError(f"--first-map {map_path} cannot be read: {error}") from error
        except SettingError as error:
            raise SettingError(f"--first-map {map_path}: {error}") from error
        digest.update(text.encode())
    return Given(path, mapped, GivenFirst(file=path.name, sha256=digest.hexdigest()))


def load_first(first: Given, network: Network, classes: Sequence[str]) -> float:
    """Fill a network that has the outputs of step 0, of these classes, background included; seconds of training.

    DataError names what the file lacks, or has in another shape, and a class without an output.
    """
    stored, outputs, seconds = _read(first)
    stored = {_renamed(name, first.mapped.names): tensor for name, tensor in stored.items()}
    state, filled = network.state_dict(), {}
    outputs = first.mapped.classes or outputs
    if absent := [name for name in classes if outputs and name not in outputs]:
        shown = ", ".join(outputs[:30])
        raise DataError(f"{first.path} has no output of the class '{absent[0]}'", f"its outputs are: {shown}")
    rows = [outputs.index(name) for name in classes] if outputs else []
    for name, own in state.items():
        tensor = stored.get(name)
        if tensor is None:
            if name.startswith(tuple(first.mapped.fresh)) or name.endswith("num_batches_tracked"):
                continue
            near = next(iter(sorted(set(stored) - set(state))), "")
            there = f"; it has '{near}', which is not of this network" if near else ""
            raise DataError(f"{first.path} has no '{name}'{there}", OTHERS)
        if rows and name.startswith(HEADS) and tensor.dim():
            tensor = _chosen(tensor, own, rows, len(outputs))
        if tensor.shape != own.shape:
            fault = f"{first.path} has '{name}' of shape {tuple(tensor.shape)}, not {tuple(own.shape)}"
            raise DataError(fault, OTHERS)
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(f"{first.path}: '{name}' is not finite", "the file is of no use")
        filled[name] = tensor.to(own.dtype)
    network.load_state_dict({**state, **filled})
    return seconds


def check_score(first: Given, iou: Sequence[float | None], n_base: int) -> str:
    """A line on the scores of base classes; DataError if the network does not know them."""
    base = [value for value in iou[1 : 1 + n_base] if value is not None]
    mean = sum(base) / max(1, len(base))
    if mean < LOWEST:
        fault = f"{first.path} scores a mean IoU of {100 * mean:.1f} % on the {n_base} classes of step 0"
        advice = "look at the order of its classes (--first-map), at data.mean and data.std, and at the backbone"
        raise DataError(fault, advice)
    name = f"{first.path.name} (sha256 {first.settings.sha256[:12]})"
    return f"the first step is given: {name}, mean IoU of {100 * mean:.1f} % on the {n_base} classes of step 0"


def _read(first: Given) -> tuple[dict[str, Tensor], tuple[str, ...], float]:
    """The tensors of the file, the names of its outputs where it has them, and the seconds of its training."""
    metadata: Mapping[str, str] = load_safetensors(first.path)[1] if is_safetensors(first.path) else {}
    if "densecl" not in metadata:
        return read_weights_file(first.path), (), 0.0
    tensors, metadata = read_tensors(first.path, "fetch it again")
    kind, outputs = metadata.get("kind"), ()
    if kind not in ("first step", "weights") or metadata.get("step", "0") != "0":
        step = f" of step {metadata['step']}" if "step" in metadata else ""
        raise DataError(f"{first.path} holds {kind}{step}", "give a first step, or weights/step0.safetensors of a run")
    try:
        outputs = tuple(map(str, json.loads(metadata.get("classes", "[]"))))
        return tensors, outputs, float(metadata.get("seconds", "0"))
    except ValueError as error:
        raise DataError(f"{first.path} is damaged: {error}", "fetch it again") from error


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A name with its beginning replaced, the longest one that fits."""
    beginning = max((old for old in names if name.startswith(old)), key=len, default=None)
    return name if beginning is None else names[beginning] + name[len(beginning) :]


def _chosen(tensor: Tensor, own: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """The outputs `rows` of a tensor of a head with `count` of them; of a map between outputs, in both dimensions."""
    if tensor.shape[0] != count:
        return tensor
    square = own.dim() > 1 and own.shape[0] == own.shape[1] == len(rows) and tensor.shape[1] == count
    tensor = tensor[list(rows)]
    return tensor[:, list(rows)] if square else tensor
