"""Errors of torch and timm that end a run, in words that say what to do."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densecl.errors import DenseCLError, RunError, SettingError, first_line
from densecl.settings.grammar import Call, format_call
from densecl.settings.recipe import RunSettings

MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # of CUDA, Linux and Windows


@contextmanager
def worded(settings: RunSettings, making: bool = False) -> Iterator[None]:
    """Raise what the body raises as `explained` words it."""
    try:
        yield
    except Exception as error:
        shown = explained(error, settings, making)
        if shown is error:
            raise
        raise shown from error


def explained(error: Exception, settings: RunSettings, making: bool = False) -> Exception:
    """A clearer error for an exception in a worker, lack of memory, a dead worker or an encoder that refuses images.

    Any other one is returned. `making`: the network was being made, nothing is trained yet.
    """
    text = str(error)
    if isinstance(error, DenseCLError) and "Original Traceback" in text:  # a worker's error comes with its traceback
        last = text.strip().splitlines()[-1]
        return type(error)(last.partition(": ")[2] or last) if type(error).__init__ is DenseCLError.__init__ else error
    if isinstance(error, DenseCLError):
        return error
    backbone = format_call(Call(settings.backbone, settings.backbone_values))
    if isinstance(error, MemoryError) or any(words in text.lower() for words in MEMORY):
        if making:
            return RunError(f"there is no memory for the network {backbone}", "use a smaller one")
        return RunError(
            f"out of memory with batch {settings.training.batch}, accumulation {settings.training.accumulation}, crop "
            f"{settings.training.crop}, evaluation.batch {settings.evaluation.batch}",
            f"{'; '.join(_smaller(settings))}; the last finished epoch is kept",
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return RunError(
            f"a process that loads data died: {text.splitlines()[0]}",
            "the same command goes on from the last finished epoch; with --workers 0 there is none to die",
        )
    places = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    if not making and any("timm" in parts for parts in places):
        encoder = settings.backbone_values.get("encoder", settings.backbone)
        return SettingError(
            f"the encoder {encoder} refuses images of training.crop={settings.training.crop}, "
            f"evaluation.size={settings.evaluation.size}: {first_line(error)}",
            "give sizes that it takes, or a convolutional encoder such as resnet50",
        )
    return error


def _smaller(settings: RunSettings) -> Iterator[str]:
    """Settings that need less memory in training, and in evaluation."""
    training, evaluated = settings.training, settings.evaluation.batch
    batch, parts = training.batch, training.accumulation
    less = []
    if 2 * parts <= batch // 2:  # a part holds two images at least
        less.append(f"training.accumulation={2 * parts}, which keeps the batch")
    if batch > 2:
        less.append(f"training.batch={max(2, batch // 2)}")
    if isinstance(training.crop, int) and training.crop > 2:
        less.append(f"training.crop={max(2, int(0.75 * training.crop))}")
    if training.precision == "fp32":
        less.append("--precision bf16")
    yield f"in training try {' or '.join(less)}" if less else "use a smaller backbone"
    if evaluated > 1:
        yield f"in evaluation evaluation.batch={evaluated // 2}"
