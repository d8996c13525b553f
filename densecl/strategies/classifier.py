"""One network for all tasks, fixed after the first; each task has a head of its own and nothing else."""

from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step


class Classifier(ByTask):
    """Classifier only, as in Mallya et al. (ECCV 2018): what the features of the first task give to the others."""

    def grow(self, step: Step) -> None:
        """From the second task on only the head is trained."""
        if step.step > 0:
            self.freeze()
