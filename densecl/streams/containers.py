"""Streams of Avalanche's experiences over the samples of a scenario.

Avalanche is imported here and in `training.stock` alone, and only when somebody asks for its streams or plugins: it
takes longer to import than a small run takes to train its first step.
"""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from densecl.streams.samples import PlainSamples

with warnings.catch_warnings():
    # QP solvers, jaxopt and pkg_resources announce themselves at import; none of them is used here.
    warnings.simplefilter("ignore")
    logging.getLogger("jax").setLevel(logging.ERROR)
    from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream
    from avalanche.benchmarks.utils.data import AvalancheDataset, make_avalanche_dataset
    from avalanche.benchmarks.utils.data_attribute import DataAttribute

if TYPE_CHECKING:
    from densecl.streams.scenario import Experience, Scenario


class DenseExperience(DatasetExperience):
    """An experience of Avalanche that also has all attributes of ours (`densecl.streams.scenario.Experience`)."""

    def __init__(self, experience: "Experience"):
        super().__init__(dataset=avalanche_dataset(experience.dataset), current_experience=experience.step)
        self.ours = experience

    def __getattr__(self, name: str) -> Any:
        if name == "ours":  # while it is being made, or unpickled
            raise AttributeError(name)
        return getattr(self.ours, name)

    # labels under the names that stock plugins look for
    classes_in_this_experience = property(lambda self: list(self.ours.new_classes))
    classes_seen_so_far = property(lambda self: list(self.ours.seen_classes))  # of this and all earlier steps
    previous_classes = property(lambda self: [c for c in self.ours.seen_classes if c not in self.ours.new_classes])


def avalanche_dataset(samples: PlainSamples) -> AvalancheDataset:
    """Samples as Avalanche's data set, all of task label 0."""
    zeros: Any = [0] * len(samples)
    labels = DataAttribute(zeros, "targets_task_labels", use_in_getitem=False)
    return make_avalanche_dataset(samples, data_attributes=[labels])  # type: ignore[arg-type]


def as_avalanche(scenario: "Scenario") -> CLScenario:
    """Training and test experiences as Avalanche's streams."""
    streams = {"train": scenario.experiences, "test": scenario.test_experiences}
    return CLScenario([EagerCLStream(name, [DenseExperience(e) for e in own]) for name, own in streams.items()])
