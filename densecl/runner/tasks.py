"""What a run of a sequence of tasks keeps besides weights: masks, pictures, and how much must be stored."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from densecl.files import atomic_path
from densecl.masking import binary, packnet
from densecl.masking.store import save_masks
from densecl.records.record import Stored
from densecl.strategies.base import Strategy
from densecl.streams.scenario import Scenario
from densecl.training.batch import normalise

PICTURES = 4  # of each task and step


def content(scenario: Scenario) -> str:
    """What is to be learnt, in words."""
    if scenario.kind == "tasks":
        return "tasks " + ", ".join(task.name for task in scenario.tasks)
    return f"{len(scenario.class_names) - 1} classes"


def stored(strategy: Strategy) -> Stored:
    """The size of what performs all tasks learnt so far."""
    tensors = strategy.model_tensors()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Stored(tensors=size, file=file_bytes(tensors), formula=strategy.model_bytes())


def keep_masks(strategy: Strategy, folder: Path, step: int) -> None:
    """Write the masks of the step's task, where it has some."""
    network, name = strategy.network, strategy.scenario.tasks[step].name
    if name in binary.tasks(network):
        save_masks(binary.masks(network, name), folder / "masks" / f"{name}.safetensors", name)
    if owners := packnet.owners(network):
        save_masks(owners, folder / "masks" / "owners.safetensors", "owners")


def keep_pictures(strategy: Strategy, folder: Path, step: int) -> None:
    """Write a picture of every task learnt so far; afterwards the network is that of the step's task again."""
    for index, task in enumerate(strategy.scenario.tasks[: step + 1]):
        save_picture(picture(strategy, index), folder / "pictures" / f"step{step}-{task.name}.png")
    strategy.select_task(step)


@torch.no_grad()
def picture(strategy: Strategy, index: int, count: int = PICTURES) -> Tensor:
    """The first test images of a task: rows of input, output and truth.

    Returns:
        (3, H, W) uint8.
    """
    scenario = strategy.scenario
    task, samples = scenario.tasks[index], scenario.tests[index]
    strategy.select_task(index)
    network = strategy.network.eval()
    rows = []
    for sample in (samples[position] for position in range(min(count, len(samples)))):
        image, mask = sample.image[None].to(strategy.device), sample.target[None].to(strategy.device)
        output = network(normalise(task.prepare(image, mask).image, *strategy.normalisation))
        shown = task.picture(image[0], output.logits[0].float(), mask[0])
        rows.append(torch.cat([part.cpu() for part in shown], 2))
    width = max(row.shape[2] for row in rows)
    rows = [torch.nn.functional.pad(row, (0, width - row.shape[2])) for row in rows]
    return torch.cat(rows, 1)


def save_picture(pixels: Tensor, path: Path) -> None:
    """Write (3, H, W) uint8 as PNG, atomically.

    Raises:
        RunError: it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")


DTYPES = {torch.int64: "I64", torch.float32: "F32", torch.uint8: "U8", torch.bool: "BOOL"}  # in the order of a file


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the safetensors file of these tensors: 8, names, types and shapes as JSON, padded to 8, the values."""
    order = list(DTYPES)
    header, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + len(text) + -len(text) % 8 + end
