"""The parts of replay of synthetic images: draws, objects, labels in sight, losses, statistics."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densecl.check.tiny import tiny_network
from densecl.losses import distillation, unbiased_distillation
from densecl.strategies.synthetic import (
    Pool,
    draw,
    find_objects,
    real_part,
    replay_loss,
    replay_mode,
    scramble,
    visible_labels,
)
from densecl.training.batch import Batch

torch.set_num_threads(1)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


def test_draws_are_spread_and_repeat():
    numbers = scramble(torch.arange(4000) + 17)
    assert torch.equal(numbers, scramble(torch.arange(4000) + 17))
    assert (numbers >= 0).all()
    counts = torch.bincount(numbers % 10, minlength=10)
    assert counts.min() > 330  # 400 each
    assert counts.max() < 470
    assert 0.45 < (numbers >> 20 & 1).float().mean() < 0.55


def test_drawn_images_are_of_the_pool_mirrored_and_rolled_together_with_their_objects():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 9, 12), generator=rng).byte()
    pool = Pool(images, torch.randint(0, 2, (5, 9, 12), generator=rng).bool())
    mean, std = torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.25)
    drawn = draw(pool, scramble(torch.arange(150)), 0.33, mean, std)
    bytes_ = ((drawn.images * std + mean) * 255).round().byte().numpy()
    chosen, mirrored, shifts = set(), 0, set()
    for image, objects in zip(bytes_, drawn.objects[:, 0].numpy(), strict=True):
        found = [
            (k, flip, down, right)
            for k in range(5)
            for flip in (False, True)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if (np.roll(images[k].numpy()[..., :: -1 if flip else 1], (down, right), (1, 2)) == image).all()
        ]
        assert len(found) == 1  # an image of the pool, mirrored or not, rolled by at most a third
        k, flip, down, right = found[0]
        assert (np.roll(pool.objects[k].numpy()[:, :: -1 if flip else 1], (down, right), (0, 1)) == objects).all()
        chosen.add(k)
        mirrored += flip
        shifts.add((down, right))
    assert chosen == set(range(5))
    assert 50 < mirrored < 100
    assert len(shifts) > 25
    still = draw(pool, scramble(torch.arange(50)), 0.0, mean, std)
    assert still.images.shape == (50, 3, 9, 12)


def test_objects_are_what_the_teacher_does_not_call_background():
    network = tiny_network()
    network.grow(3)
    network.eval()
    images = torch.randint(0, 256, (70, 3, 16, 16)).byte()
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.2)
    with torch.no_grad():
        expected = network((images.float() / 255 - mean) / std).logits.argmax(1) > 0
    assert torch.equal(find_objects(images, network, mean, std), expected)


def test_a_share_of_the_images_has_a_real_one_around_its_objects():
    pool = Pool(torch.zeros(3, 3, 4, 4).byte(), torch.rand(3, 4, 4) > 0.5)
    numbers = scramble(torch.arange(4000))
    drawn = draw(pool, numbers, 0.0, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    seen = real_part(drawn, numbers, 0.25)
    assert not (seen & drawn.objects).any()
    laid = seen.flatten(1).any(1)
    assert torch.equal(seen[laid], ~drawn.objects[laid])
    assert 0.22 < laid.float().mean() < 0.28
    assert not real_part(drawn, numbers, 0.0).any()
    assert torch.equal(real_part(drawn, numbers, 1.0), ~drawn.objects)


@pytest.mark.parametrize("weight", [None, "image", "pixel"])
def test_labels_in_sight_count_each_image_alike_however_the_batch_is_split(weight):
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (4, 5, 5), generator=rng)
    target[0, :2] = 255
    weights = {None: None, "image": torch.rand(4, generator=rng), "pixel": torch.rand(4, 5, 5, generator=rng)}[weight]
    batch = Batch(torch.zeros(4, 3, 5, 5), target, weights, torch.ones(4).long(), torch.arange(4))
    seen = torch.rand(8, 1, 5, 5, generator=rng) > 0.4
    seen[3] = seen[6] = False
    losses = torch.rand(8, 5, 5, generator=rng)

    def term(part, share, rows):
        whole = part.weight.sum()
        return share * (losses[rows] * part.weight).sum() / whole if whole > 0 else torch.zeros(())

    found = term(*visible_labels(batch, seen), torch.arange(8))
    expected = 0.0
    for row in range(8):
        counted = seen[row, 0] & (target[row % 4] != 255)
        w = counted.float() * (1 if weights is None else weights[row % 4])
        expected += float((losses[row] * w).sum() / w.sum()) / 8 if counted.any() else 0.0
    assert found.item() == pytest.approx(expected, rel=1e-5)
    parts = []
    for rows in (torch.tensor([0, 1]), torch.tensor([2, 3])):
        part = batch.map(lambda field, rows=rows: field[rows])
        both = torch.cat([rows, rows + 4])
        parts.append(term(*visible_labels(part, seen[both]), both) / 2)
    assert sum(parts).item() == pytest.approx(expected, rel=1e-5)


def test_replay_losses_are_what_they_are_called():
    rng = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 5, 4, 4, generator=rng), torch.randn(2, 3, 4, 4, generator=rng)
    torch.testing.assert_close(replay_loss(logits, wanted, "unbiased"), unbiased_distillation(logits, wanted))
    torch.testing.assert_close(replay_loss(logits, wanted, "kl"), distillation(logits, wanted))
    expected = ((logits[:, :3].numpy() - wanted.numpy()) ** 2).mean()
    assert replay_loss(logits, wanted, "mse").item() == pytest.approx(expected, rel=1e-5)
    expected = F.cross_entropy(logits, wanted.argmax(1))
    torch.testing.assert_close(replay_loss(logits, wanted, "pseudo"), expected)


@pytest.mark.parametrize("bn", ["frozen", "separate", "shared"])
def test_batchnorm_statistics_are_touched_by_shared_replay_alone(bn):
    network = tiny_network()
    network.grow(3)
    network.train()
    network.backbone.encoder.stem[1].eval()
    modes = [module.training for module in network.modules()]
    before, images = copy.deepcopy(network.state_dict()), torch.randn(4, 3, 32, 32) * 3 + 1
    with replay_mode(network, bn):
        replayed = network(images).logits
    assert same(before, network.state_dict()) == (bn != "shared")
    assert [module.training for module in network.modules()] == modes
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    reference = copy.deepcopy(network)
    reference.load_state_dict(before)
    reference.eval() if bn == "frozen" else reference.train()
    if bn == "shared":
        reference.backbone.encoder.stem[1].eval()
    torch.testing.assert_close(replayed, reference(images).logits)
