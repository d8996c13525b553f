"""`training.loss_stride`: the loss of the middle pixels of squares, against torch's own, and by every method."""

import pytest
import torch
import torch.nn.functional as F
from avalanche.training.plugins import EarlyStoppingPlugin

from densecl.check.tiny import TRAINING, tiny_loop, tiny_scenario, tiny_sequence
from densecl.errors import SettingError
from densecl.models.network import upsample
from densecl.runner.methods import parse_method
from densecl.settings.recipe import TrainingSettings
from densecl.strategies.base import Strategy
from densecl.training.batch import Batch, thinned
from densecl.training.parts import check_parts

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = [
    "lwf",
    "ilt",
    "mib",
    "plop",
    "dft",
    "dkd",
    "ssul",
    "star",
    "sdr",
    "rcil",
    "reminder",
    "barm",
    "frozen",
    "mib+ewf",
    "mib+ewc",
    "mib+nest",
    "mib+replay(memory=4)",
    "dkd+replay(memory=8,policy=balanced,batch=joined)",
    "mib+replay(memory=8,policy=greedy,batch=half,replay_loss=augmented)",
    "mib+deepinversion(iterations=2,images_per_class=2)",
]


def trained(text, stride, scenario=None, steps=2, **changed):
    """A loop after a few iterations of its first steps."""
    training = TRAINING.model_copy(update={"loss_stride": stride, "iterations": 1, **changed})
    scenario = scenario or tiny_scenario()
    loop = tiny_loop(parse_method(text), scenario, training=training)
    loop.train(scenario.experiences[:steps])
    return loop


def test_labels_are_those_of_the_middle_pixels():
    values = torch.arange(2 * 7 * 9).view(2, 7, 9)
    batch = Batch(torch.zeros(2, 3, 7, 9), values, torch.ones(2), torch.zeros(2), torch.zeros(2), {"map": values})
    for stride in (2, 3, 4):
        few = thinned(batch, stride)
        rows, columns = ([stride // 2 + stride * k for k in range(size // stride)] for size in (7, 9))
        assert few.target.tolist() == [[[int(image[y, x]) for x in columns] for y in rows] for image in values]
        assert few.extra["map"].equal(few.target)
        assert few.image.shape == batch.image.shape
        assert few.weight is batch.weight or few.weight.equal(batch.weight)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (33, 30), (2, 1)])
def test_logits_are_those_of_the_same_pixels(height, width):
    like = torch.zeros(1, 1, 33, 30)
    x = torch.randn(2, 3, height, width).double()
    whole = F.interpolate(x, size=(33, 30), mode="bilinear", align_corners=False)
    if (height, width) == (33, 30):
        whole = x
    for stride in (2, 3, 4, 16):
        rows, columns = ([stride // 2 + stride * k for k in range(size // stride)] for size in (33, 30))
        expected = whole[:, :, rows][..., columns]
        torch.testing.assert_close(upsample(x, like, stride), expected, rtol=0, atol=1e-6)


def test_the_loss_is_a_mean_over_those_pixels():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune"), scenario, training=TRAINING.model_copy(update={"loss_stride": 4}))
    loop.begin(scenario.experiences[0])
    loop.begin_epoch()
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    features = loop.network.backbone(batch.image)
    maps = loop.network.heads(features.decoded, features.auxiliary)
    grown = [F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)[..., 2::4, 2::4] for x in maps]
    expected = sum(F.cross_entropy(x, batch.target[:, 2::4, 2::4].long(), ignore_index=255) for x in grown)
    loop.begin_epoch()  # the same batch again
    loop.update(next(iter(loop.loader)))
    assert loop.loss_terms["task"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("text", METHODS)
def test_every_method_learns_from_fewer_pixels_and_learns_something_else(text):
    few, all_of_them = trained(text, 2), trained(text, 1)
    assert few.output.logits.shape[-1] == all_of_them.output.logits.shape[-1] // 2
    weights = [torch.nn.utils.parameters_to_vector(loop.network.parameters()) for loop in (few, all_of_them)]
    assert torch.isfinite(weights[0]).all()
    if text != "frozen":
        assert not weights[0].equal(weights[1])


def test_weights_of_classes_are_those_of_the_middle_pixels():
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update={"loss_stride": 2, "class_weights": 0.5})
    loop = tiny_loop(parse_method("finetune"), scenario, training=training)
    loop.begin(scenario.experiences[0])
    loop.begin_epoch()
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    labels = batch.target[:, 1::2, 1::2].long()
    logits = loop.network(batch.image, 2)
    weight = loop._class_weights[labels] * (labels != 255)
    terms = [F.cross_entropy(x, labels, ignore_index=255, reduction="none") for x in (logits.logits, *logits.auxiliary)]
    expected = sum((term * weight).sum() / weight.sum() for term in terms)
    loop.begin_epoch()  # the same batch again
    loop.update(next(iter(loop.loader)))
    assert loop.loss_terms["task"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_of_classes_and_accumulation_count_those_pixels():
    whole = trained("finetune", 2, steps=1, class_weights=0.5, batchnorm="frozen")
    parts = trained("finetune", 2, steps=1, class_weights=0.5, batchnorm="frozen", accumulation=2)
    assert whole.loss_terms["task"].item() == pytest.approx(parts.loss_terms["task"].item(), rel=0.2)


def test_images_as_targets_are_refused():
    with pytest.raises(SettingError, match=r"training\.loss_stride=2: 'colours' is a task of kind colorization"):
        trained("finetune", 2, scenario=tiny_sequence())


def test_a_crop_below_the_stride_and_stock_plugins_are_refused():
    with pytest.raises(ValueError, match="a crop of 12 pixels has no square of loss_stride=16"):
        TrainingSettings(crop=12, loss_stride=16)
    plugin = EarlyStoppingPlugin(patience=1, val_stream_name="held_out")
    with pytest.raises(SettingError, match="loss_stride=2: EarlyStoppingPlugin is a stock Avalanche plugin"):
        check_parts(TrainingSettings(loss_stride=2), [plugin], [], Strategy, torch.device("cpu"))
