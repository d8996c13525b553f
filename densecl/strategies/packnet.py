"""PackNet: tasks share out the weights of one network among themselves."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from densecl.masking import packnet
from densecl.strategies.by_task import ByTask
from densecl.streams.scenario import Experience
from densecl.streams.stream import Step
from densecl.training.schedule import decay

Share = Annotated[float, Field(ge=0, lt=1)]


class PackNet(ByTask):
    """Train what is free, give up the smallest weights of each layer, train on (Mallya & Lazebnik, CVPR 2018).

    A task sees its own weights and those of the tasks before. Biases are the first task's; where normalisation has
    parameters or statistics, each task has its own.
    """

    first_step: ClassVar[Literal["own", "shared"]] = "own"
    _formula = "packnet"
    first_prune: Share = 0.5  # of the first task's weights that are given up, a layer
    prune: Share = 0.75  # of each later task's
    retrain: Annotated[float, Field(gt=0)] = 0.5  # further training after pruning, in lengths of a step
    retrain_lr: Annotated[float, Field(gt=0)] = 0.5  # times the rate

    def grow(self, step: Step) -> None:
        """Train the weights without an owner, the head and normalisation."""
        if step.step == 0:
            packnet.add_owners(self.network)
        self.bank(self.backbone_norms())
        packnet.begin(self.network)
        if step.step > 0:
            self.freeze(packnet.trained(self.network))

    def length_factor(self, step: int) -> float:
        """Training, then retraining after pruning, which is all where the weights are given."""
        return self.retrain + (not self.stream.tasks[step].given)

    def before_step(self, experience: Experience) -> None:
        """Prune given weights at once."""
        if experience.task.given:
            self._prune()

    def param_groups(self) -> list[dict[str, Any]]:
        """All that is trained; the rate falls twice, before and after the pruning."""
        return [{**group, "factor": self._factor} for group in super().param_groups()]

    def after_iteration(self) -> None:
        """Prune when the step's first part is over."""
        if self.iterations == self._prune_at(self.planned):
            self._prune()

    def leave(self, task: str) -> None:
        """Finish the task's weights; a step too short to be pruned, or a replayed one, is pruned here."""
        if packnet.phase(self.network) == packnet.Phase.TRAINING:
            self._prune()
        if packnet.phase(self.network) != packnet.Phase.FINISHED:
            packnet.finish(self.network)

    def show(self, index: int) -> None:
        """Activate the weights of a task and of those before."""
        packnet.select(self.network, index + 1)

    def _prune(self) -> None:
        packnet.prune(self.network, self.prune if self.step else self.first_prune)

    def _prune_at(self, iterations: int) -> int:
        """The iteration after which the step is pruned; 0 where it was before all."""
        if self.stream.tasks[self.step].given:
            return 0
        return max(1, round(iterations / self.length_factor(self.step)))

    def _factor(self, iterations: int, i: int) -> float:
        cut = self._prune_at(iterations)
        if self.settings.milestones and i >= cut:  # Mallya et al. retrain at one rate (ECCV 2018, section 4)
            return self.retrain_lr
        return decay(self.settings, iterations, i, cut, self.retrain_lr)
