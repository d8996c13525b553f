import numpy as np
import pytest
import torch

from densecl.check.tiny import TinyImages, tiny_scenario
from densecl.streams.samples import SampleKey
from densecl.training.class_weights import class_weights, label_frequencies
from densecl.training.loader import EpochBatches, make_loader, step_length


@pytest.mark.parametrize(("n", "batch"), [(24, 6), (25, 6), (26, 6), (1, 6), (2, 6), (7, 6), (6, 6), (100, 7)])
def test_an_epoch_shows_every_image_once_and_never_a_batch_of_one(n, batch):
    batches = list(EpochBatches(n, batch, seed=0, step=1))
    assert all(len(keys) > 1 for keys in batches)
    shown = sorted(key.position for keys in batches for key in keys)
    assert shown == ([0, 0] if n == 1 else list(range(n)))
    assert len(EpochBatches(n, batch, 0, 1)) == len(batches)


def test_the_order_derives_from_seed_step_and_epoch():
    def order(seed, step, epoch):
        batches = EpochBatches(50, 8, seed, step)
        batches.set_epoch(epoch)
        return [key.position for keys in batches for key in keys]

    assert order(0, 1, 2) == order(0, 1, 2)
    assert len({tuple(order(s, k, e)) for s in (0, 1) for k in (0, 1) for e in (0, 1)}) == 8


def test_a_limit_cuts_the_epoch_short():
    batches = EpochBatches(50, 8, 0, 0)
    batches.set_epoch(0, 3)
    assert len(list(batches)) == 3


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "iterations", "expected"),
    [(100, 10, 3, None, (3, 30)), (5, 10, 3, None, (3, 3)), (100, 10, None, 25, (3, 25)), (101, 10, 2, None, (2, 20))],
)
def test_the_length_of_a_step_counts_at_least_one_iteration_an_epoch(images, batch, epochs, iterations, expected):
    assert step_length(images, batch, epochs, iterations) == expected


@pytest.mark.parametrize(("n", "sizes"), [(13, [4, 4, 4, 1]), (12, [4, 4, 4]), (15, [4, 4, 4, 3]), (3, [3])])
def test_drop_last_leaves_out_a_smaller_last_batch_but_never_the_only_one(n, sizes):
    whole = [size for size in sizes if size == 4] or sizes
    batches = EpochBatches(n, 4, seed=0, step=0, drop_last=True)
    assert [len(keys) for keys in batches] == whole
    assert len(batches) == len(whole)
    assert step_length(n, 4, 3, None, drop_last=True) == (3, 3 * len(whole))


def test_samples_do_not_depend_on_the_number_of_workers_nor_disturb_the_global_generator():
    scenario = tiny_scenario(images=24)

    def load(workers):
        batches = EpochBatches(12, 5, seed=3, step=0)
        torch.manual_seed(7)
        loaded = list(make_loader(scenario.training, batches, workers, pin=False))
        return loaded, torch.rand(1)

    (alone, drawn_alone), (shared, drawn_shared) = load(0), load(2)
    assert torch.equal(drawn_alone, drawn_shared)
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
        assert torch.equal(a.index, b.index)


def test_a_replayed_sample_carries_the_labels_of_its_own_step():
    scenario = tiny_scenario()
    first = scenario.training[SampleKey(source=0, position=0, step=2, epoch=0)]
    assert first.step == 0
    assert set(first.target.unique().tolist()) <= {0, 1, 2, 255}
    last = scenario.training[SampleKey(source=2, position=0, step=2, epoch=0)]
    assert set(last.target.unique().tolist()) <= {0, 4, 255}


def test_class_weights_are_frequencies_to_a_power_with_mean_one_over_pixels():
    scenario = tiny_scenario()
    images = scenario.experiences[0].images
    frequencies = label_frequencies(scenario.training.readers[0], images)
    reader = scenario.training.readers[0]
    masks = np.stack([images.table.numpy()[reader.read_mask(int(i))] for i in images.indices])
    valid = masks[masks != 255]
    expected = np.array([(valid == c).mean() for c in range(3)])
    np.testing.assert_allclose(frequencies[:3], expected)
    weights = class_weights(frequencies, 0.5).numpy()
    np.testing.assert_allclose(weights[:3], expected**-0.5 / (expected**0.5).sum(), rtol=1e-5)
    np.testing.assert_allclose(weights[valid].mean(), 1, rtol=1e-5)
    assert weights[7] == 1


def test_held_out_images_are_evaluated_and_not_trained_on():
    from densecl.streams.scenario import class_incremental

    train, test = TinyImages(24, 1), TinyImages(8, 2)
    scenario = class_incremental(train, test, ((1, 2), (3, 4)), validation=0.25, presence=train.presence())
    trained = {int(i) for e in scenario.experiences for i in e.images.indices}
    held = set(scenario.tests[0].indices.tolist())
    assert len(held) == 6
    assert not trained & held
    assert scenario.tests[0].reader is train
