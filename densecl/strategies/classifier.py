"""One network for all tasks, fixed after the first; each task has a head of its own and nothing else."""

from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step


class Classifier(ByTask):
    """Classifier only, as in Mallya et al. (ECCV 2018): shows what the first task's features give to the others."""

    def grow(self, step: Step) -> None:
        """Train the head alone from the second task on."""
        if step.step > 0:
            self.freeze()
