"""Who hears how a run goes: progress always, TensorBoard and Weights & Biases where they were asked for."""

import importlib.util

from densecl.errors import SettingError
from densecl.listeners.events import Listener, Listeners
from densecl.listeners.progress import Progress
from densecl.training.distributed import is_main
from densecl.training.loop import Loop


def listeners(
    *, quiet: bool = False, verbose: bool = False, tensorboard: bool = False, wandb: bool = False
) -> Listeners:
    """The listeners of a run; of several processes the main one alone has some.

    Progress is the last: Weights & Biases may ask who is there when it starts, and bars would draw over the question.

    Raises:
        SettingError: a package that is not installed, and the command that installs it.
    """
    if not is_main():
        return Listeners()
    found: list[Listener] = []
    if tensorboard:
        _require("tensorboard")
        from densecl.listeners.tensorboard import TensorBoard

        found.append(TensorBoard())
    progress = Progress(quiet, verbose)
    if wandb:
        _require("wandb")
        from densecl.listeners.weights_and_biases import WeightsAndBiases

        found.append(WeightsAndBiases(progress.line))
    return Listeners([*found, progress])


def lengths(loop: Loop) -> tuple[int, ...]:
    """Planned iterations of each step."""
    return tuple(loop.length(experience)[1] for experience in loop.scenario.experiences)


def _require(package: str) -> None:
    """Refuse what is not installed, before any data is read."""
    if importlib.util.find_spec(package) is None:
        raise SettingError(f"--{package}: {package} is not installed", f"pip install 'densecl[{package}]'")
