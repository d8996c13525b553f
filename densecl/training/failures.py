"""Errors of torch that end a run, in words that say what to do."""

from densecl.errors import DenseCLError, RunError
from densecl.settings.recipe import RunSettings


def explained(error: Exception, settings: RunSettings) -> Exception:
    """A clearer error for an exception in a worker, lack of memory or a dead worker; any other one is returned."""
    text = str(error)
    if isinstance(error, DenseCLError) and "Original Traceback" in text:  # a worker's error comes with its traceback
        last = text.strip().splitlines()[-1]
        return type(error)(last.partition(": ")[2] or last) if type(error).__init__ is DenseCLError.__init__ else error
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        training = settings.training
        smaller = f" or training.crop={int(0.75 * training.crop)}" if isinstance(training.crop, int) else ""
        return RunError(
            f"out of memory with batch {training.batch}, accumulation {training.accumulation}, crop {training.crop}, "
            f"evaluation.batch {settings.evaluation.batch}",
            f"in training try training.accumulation={2 * training.accumulation}, which keeps the batch, "
            f"training.batch={max(2, training.batch // 2)}{smaller}; in evaluation evaluation.batch="
            f"{max(1, settings.evaluation.batch // 2)}; the last finished epoch is kept",
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return RunError(
            f"a process that loads data died: {text.splitlines()[0]}",
            "the same command goes on from the last finished epoch; with --workers 0 there is none to die",
        )
    return error
