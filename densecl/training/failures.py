"""What torch says when training cannot go on, in words that say what to do."""

from densecl.errors import DenseCLError, RunError
from densecl.settings.recipe import RunSettings

WORKER = "Original Traceback"


def explained(error: Exception, settings: RunSettings) -> Exception:
    """The error to show instead: for an exception out of a worker, memory that ran out, a worker that died.

    Any other error is returned as it is.
    """
    text = str(error)
    if isinstance(error, DenseCLError) and WORKER in text:  # a worker's exception comes with its traceback as text
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
