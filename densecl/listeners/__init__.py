"""Listeners of a run: progress always, TensorBoard and Weights & Biases where they were asked for."""

import importlib.util
import sys
from typing import TYPE_CHECKING

from densecl.errors import SettingError
from densecl.listeners.events import Listener, Listeners

if TYPE_CHECKING:
    from densecl.training.loop import Loop


def listeners(
    *, quiet: bool = False, verbose: bool = False, tensorboard: bool = False, wandb: bool = False
) -> Listeners:
    """The listeners of a run; of several processes the main one alone has some, if their packages are installed.

    Progress is the last: Weights & Biases may ask who is there when it starts, and bars would draw over the question.
    """
    from densecl.training.distributed import is_main

    if not is_main():
        return Listeners()
    for package, wanted in (("tensorboard", tensorboard), ("wandb", wandb)):
        if wanted and importlib.util.find_spec(package) is None:
            raise SettingError(f"--{package}: {package} is not installed", f"pip install 'densecl[{package}]'")
    if _in_notebook():
        from densecl.listeners.notebook import NotebookProgress as Progress
    else:
        from densecl.listeners.progress import Progress
    progress = Progress(quiet, verbose)
    others: list[Listener] = []
    if tensorboard:
        from densecl.listeners.tensorboard import TensorBoard

        others.append(TensorBoard())
    if wandb:
        from densecl.listeners.weights_and_biases import WeightsAndBiases

        others.append(WeightsAndBiases(progress.line))
    return Listeners([*others, progress])


def lengths(loop: "Loop") -> tuple[int, ...]:
    """Planned iterations of each step."""
    return tuple(loop.length(experience)[1] for experience in loop.scenario.experiences)


def _in_notebook() -> bool:
    """True in a kernel of Jupyter, which can show HTML; nothing is imported."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
