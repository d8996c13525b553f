"""Segmentation, depth and normals one after another, in memory: held, scored, mirrored, in parts of a batch."""

import numpy as np
import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network
from densecl.data.dataset import Sample
from densecl.data.sets.scenes import CLASSES, Scenes
from densecl.data.transforms import Compose, HorizontalFlip
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.runner.pictures import task_picture
from densecl.settings.recipe import LaterSettings
from densecl.streams.samples import SampleKey, Transforms
from densecl.streams.scenario import TaskSource, task_sequence
from densecl.tasks import Segmentation
from densecl.tasks.depth import Depth
from densecl.tasks.normals import Normals

BRIEF = TRAINING.model_copy(update={"epochs": 2, "later": LaterSettings(lr=1e-3)})


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


class Rooms:
    """A few drawn rooms in memory, with one of their truths."""

    name, split, has_background, has_masks = "rooms", "train", True, True
    class_names = CLASSES

    def __init__(self, drawing, truth):
        self.drawing, self.truth = drawing, truth
        self.ids = tuple(f"{i}" for i in range(len(drawing.images)))
        self.image_files = self.mask_files = (__file__,) * len(self.ids)

    def __len__(self):
        return len(self.ids)

    def read(self, i):
        part = slice(i, i + 1)
        truths = {
            "labels": lambda: torch.from_numpy(self.drawing.masks[i]),
            "depth": lambda: torch.from_numpy(self.drawing.depth[part].copy()),
            "normals": lambda: torch.from_numpy(self.drawing.normals[i]).permute(2, 0, 1).contiguous(),
        }
        image = torch.from_numpy(self.drawing.images[i]).permute(2, 0, 1).contiguous()
        return Sample(image, truths[self.truth]())

    def read_extra(self, _i):
        return {}


TASKS = (Segmentation("labels", classes=len(CLASSES)), Depth("depth"), Normals("normals"))


@pytest.fixture(scope="module")
def scenario():
    train, test = Scenes.draw(18, 1), Scenes.draw(4, 2)
    sources = []
    for k, task in enumerate(TASKS, 1):
        truth = task.truth or "labels"
        transforms = Transforms(augment=Compose((HorizontalFlip(0.5, task.geometry()),)))
        sources.append(TaskSource(task, Rooms(train, truth), Rooms(test, truth), transforms, (k, 3)))
    return task_sequence(sources)


@pytest.mark.parametrize("method", ["lwf", "had", "had(distance=plain)", "finetune+replay(memory=6)", "finetune+ewc"])
def test_unlike_tasks_are_learnt_held_and_scored(method, scenario):
    loop = tiny_loop(parse_method(method), scenario, tiny_network("unet", width=4, depth=2), BRIEF)
    loop.train(scenario.experiences)
    term = {"finetune+replay(memory=6)": "replay", "finetune+ewc": "ewc"}.get(method, "regulariser")
    assert loop.loss_terms[term] > 0
    labels, depth, normals = (evaluation.metrics for evaluation in evaluate(loop, 2, 4))
    assert 0 <= labels["miou"]["all"] <= 1
    assert 0 < depth["absolute"] < 20
    assert 0 < normals["angle"] < 180
    assert task_picture(loop, 1).shape == (3, 4 * 64, 3 * 64)


def test_a_mirrored_sample_is_that_of_a_mirrored_room(scenario):
    """Normals that point to the right in one point to the left in the other; other samples are as they were."""
    samples, seen = scenario.training, set()
    for step, kind in ((1, "depth"), (2, "normals")):
        for position in range(6):
            sample = samples[SampleKey(step, position, step, 0)]
            plain = samples.readers[step].read(sample.index)
            mirrored = not torch.equal(sample.image, plain.image)
            seen.add(mirrored)
            truth = plain.mask.flip(-1) if mirrored else plain.mask
            if mirrored and kind == "normals":
                truth = truth * torch.tensor([-1.0, 1, 1]).view(3, 1, 1)
            assert torch.equal(sample.image, plain.image.flip(-1) if mirrored else plain.image)
            assert torch.equal(sample.target, truth)
    assert seen == {True, False}


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(scenario):
    """Though the images of a batch know depth in different shares of their pixels."""
    gradients = []
    for parts in (1, 2):
        settings = BRIEF.model_copy(update={"accumulation": parts, "batch": 6})
        network = tiny_network("unet", width=4, depth=2, norm="instance")  # BatchNorm would see the parts
        loop = tiny_loop(parse_method("finetune"), scenario, network, settings)
        loop.begin(scenario.experiences[0])
        loop.begin(scenario.experiences[1])
        loop.begin_epoch()
        batch = next(iter(loop.loader))
        target = batch.target.clone()
        target[0] *= torch.from_numpy(np.random.default_rng(0).random(target[0].shape) < 0.2)
        loop.update(batch._replace(target=target))
        gradients.append(torch.cat([p.grad.flatten() for p in loop.network.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
