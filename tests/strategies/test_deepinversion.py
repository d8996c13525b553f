import copy
from functools import cache

import pytest
import torch
from torch import nn

from densecl.check import tiny
from densecl.check.check import check_method
from densecl.check.tiny import BISENET, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import DenseCLError
from densecl.losses import distillation
from densecl.runner.methods import parse_method
from densecl.settings.recipe import LaterSettings

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
