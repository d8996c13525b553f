import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densecl.check import tiny
from densecl.check.check import check_method
from densecl.check.tiny import BISENET, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import DenseCLError
from densecl.losses import distillation, unbiased_distillation
from densecl.runner.methods import parse_method
from densecl.settings.recipe import LaterSettings
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
QUICK = "images_per_class=3,iterations=4"
TRAINING = tiny.TRAINING.model_copy(update={"lr": 1e-2})  # enough for a teacher that sees objects and background
BACKBONES = {
    "bisenet": BISENET,
    "deeplabv3": {"encoder": "mini", "weights": "none", "width": 8, "encoder_widths": (8, 8, 12, 16)},
    "unet": {"width": 4, "depth": 2, "norm": "batch"},
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


def made(options=QUICK, base="mib", backbone="bisenet", training=TRAINING, steps=3, seed=0):
    scenario = tiny_scenario(images=24)
    network = tiny_network(backbone, **BACKBONES[backbone])
    loop = tiny_loop(parse_method(f"{base}+deepinversion({options})"), scenario, network, training, seed)
    for experience in scenario.experiences[:steps]:
        loop.train([experience])
    return loop


def weights(loop):
    return {name: tensor.clone() for name, tensor in loop.network.state_dict().items()}


@cache
def plainly_trained(steps):
    """Weights after training with the options of `made` alone."""
    return weights(made(steps=steps))


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


# ---- parts


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


# ---- whole runs


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("base", ["finetune", "lwf", "ilt", "mib"])
def test_it_goes_with_every_strategy_and_backbone(base, backbone):
    loop = made(base=base, backbone=backbone)
    assert loop.network.n_outputs == 5
    assert "deepinversion" in loop.loss_terms
    assert all(torch.isfinite(p).all() for p in loop.network.parameters())


@pytest.mark.parametrize(
    "options",
    [
        "source=noise",
        "source=real",
        "bn=separate",
        "bn=shared",
        "replay_loss=mse",
        "replay_loss=kl",
        "replay_loss=pseudo",
        "ratio=2",
        "paste=0",
        "paste=1,labels=0",
        "later=add",
        "later=renew",
        "classes_per_image=2",
        "weight=3",
        "paste=0,size=16",
        "preset=published",
        "preset=disalvo,size=16",
    ],
)
def test_every_option_trains_to_other_weights(options):
    steps = 3 if "later" in options else 2
    changed = made(f"{QUICK},{options}", steps=steps)
    assert all(torch.isfinite(p).all() for p in changed.network.parameters())
    assert not same(plainly_trained(steps), weights(changed))


def test_the_first_step_is_not_touched():
    first = plainly_trained(1)
    assert same(first, weights(made(base="finetune", steps=1)))
    scenario = tiny_scenario(images=24)
    alone = tiny_loop(parse_method("finetune"), scenario, tiny_network(), TRAINING)
    alone.train([scenario.experiences[0]])
    assert same(first, weights(alone))


def test_replay_keeps_the_network_near_its_teacher_on_old_images():
    later = LaterSettings(lr=5e-3)
    training = TRAINING.model_copy(update={"epochs": 8, "later": later, "batchnorm": "frozen"})
    distances = []
    for options in ("weight=0,labels=0", "source=real,weight=100,labels=0"):
        loop = made(f"{QUICK},{options}", base="finetune", training=training, steps=2)
        dataset = loop.scenario.experiences[0].dataset
        images = torch.stack([dataset[i][0] for i in range(len(dataset))])
        with torch.no_grad():
            logits, wanted = loop.network.eval()(images).logits, loop.teacher(images).logits
        q = wanted.softmax(1)
        distances.append((distillation(logits, wanted) * 3 + (q * q.log()).sum(1).mean()).item())  # a divergence
    assert 0 < distances[1] < 0.8 * distances[0]


@pytest.mark.parametrize(("later", "labels"), [("keep", [[1, 2]]), ("add", [[1, 2], [3]]), ("renew", [[1, 2, 3]])])
def test_which_classes_are_replayed_later(later, labels):
    loop = made(f"{QUICK},later={later}")
    (plugin,) = loop.plugins
    banks = plugin.notes(loop.strategy)["banks"]
    assert [bank["labels"] for bank in banks] == labels
    assert all(len(bank["hash"]) == 64 and 0 <= bank["quality"]["shown"] <= 1 for bank in banks)
    stored = 3 * 32 * 32 * 3 * sum(map(len, labels))
    assert plugin.stored_bytes(loop.strategy) == stored
    (alone,) = made(f"{QUICK},later={later}", base="finetune").plugins
    parameters = sum(p.numel() * 4 for p in loop.network.parameters())
    assert alone.stored_bytes(tiny_loop(parse_method("finetune"), tiny_scenario(), loop.network).strategy) >= parameters


def test_real_images_are_of_earlier_steps_and_their_classes():
    loop = made(f"{QUICK},source=real", steps=2)
    (plugin,) = loop.plugins
    images = plugin._real(loop.strategy, [1, 2])
    first = loop.scenario.experiences[0]
    reader = loop.scenario.training.readers[0]
    known = {reader.read(int(i)).image.numpy().tobytes() for i in first.images.indices}
    assert len(images) == 6
    assert all(image.numpy().tobytes() in known for image in images)


@pytest.mark.parametrize("student", ["network", "unet(width=4,depth=2)", "bisenet(encoder=mini,weights=none,width=8)"])
def test_adaptive_synthesis_makes_other_images_and_resumes(student):
    quoted = f"'{student}'" if "(" in student else student
    options = f"{QUICK},student={quoted},student_iterations=6,competition=20"
    plain, adaptive = made(steps=2), made(options, steps=2)
    banks = [loop.plugins[0].notes(loop.strategy)["banks"] for loop in (plain, adaptive)]
    assert banks[0][0]["hash"] != banks[1][0]["hash"]
    assert not same(weights(plain), weights(adaptive))


@pytest.mark.parametrize("options", ["later=keep", "later=add", "student=network,competition=5"])
def test_killed_within_a_later_step_it_goes_on_with_the_same_images(options):
    training = TRAINING.model_copy(update={"epochs": 4})
    whole = made(f"{QUICK},{options}", training=training)
    loop = made(f"{QUICK},{options}", training=training, steps=2)
    finished, method = weights(loop), copy.deepcopy(loop.method_state())
    states = []
    loop.after_epoch = lambda: states.append(copy.deepcopy(loop.state()))
    loop.train([loop.scenario.experiences[2]])
    for state in (states[0], states[2]):
        again = made(f"{QUICK},{options}", training=training, steps=0)
        first, second, third = again.scenario.experiences
        again.enter(first)
        again.enter(second)
        again.network.load_state_dict(finished)
        again.load_method_state(method)
        again.resume(state)
        again.train([third])
        assert same(weights(again), weights(whole))


def test_images_that_are_gone_are_named_and_made_from_the_present_teacher(tmp_path):
    import shutil

    loop = made(steps=2)
    lines = []

    class Events:
        def step_started(self, *_):
            pass

        def iteration(self, *_):
            pass

        def epoch_finished(self, *_):
            pass

        def line(self, text):
            lines.append(text)

    loop.events = Events()
    shutil.rmtree(tmp_path / "cache" / "banks")
    loop.train([loop.scenario.experiences[2]])
    assert any("synthesised from the present teacher" in line for line in lines)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_loss_of_the_whole(parts):
    """With all statistics fixed, accumulation must not change what is replayed."""
    found = []
    for accumulation in (1, parts):
        settings = TRAINING.model_copy(update={"accumulation": accumulation, "optimizer": "sgd", "lr": 0.02})
        loop = made(training=settings, steps=0)
        losses = []

        def still(loop=loop):
            loop.network.train()
            for module in loop.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

        class Events:
            def step_started(self, *_):
                pass

            def iteration(self, epoch, iteration, terms, samples, rates, losses=losses):
                losses.append({name: float(term.detach()) for name, term in terms.items()})

            def epoch_finished(self, *_):
                pass

        loop.strategy.train_mode, loop.events = still, Events()
        for experience in loop.scenario.experiences[:2]:
            loop.train([experience])
        found.append(losses)
    assert len(found[0]) == len(found[1])
    for whole, split in zip(*found, strict=True):
        assert split == pytest.approx(whole, rel=2e-3, abs=1e-6)


def test_under_frozen_batchnorm_statistics_stay_those_of_step_0():
    settings = TRAINING.model_copy(update={"batchnorm": "frozen"})
    first, last = made(training=settings, steps=1), made(training=settings)
    for name, value in weights(first).items():
        if "running" in name:
            assert torch.equal(weights(last)[name], value), name


def test_check_finds_nothing_wrong():
    assert check_method(f"mib+deepinversion({QUICK})") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("images_per_class=0", "images_per_class"),
        ("student=network", "give both"),
        ("competition=1", "give both"),
        ("student=resnet,competition=1", "unknown backbone 'resnet'"),
        ("student='unet(depth=2,wide=1)',competition=1", "wide"),
        ("student='unet(depth=deep)',competition=1", "depth"),
        ("replay_loss=l1", "replay_loss"),
        ("source=web", "source"),
        ("paste=2", "paste"),
        ("size=16", "give paste=0"),
        ("size=16,paste=0,source=real", "source=inversion or noise"),
        ("betas=(2,0.9)", "betas"),
        ("preset=best", "preset"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, message):
    with pytest.raises(DenseCLError, match=message):
        made(options, steps=0)
