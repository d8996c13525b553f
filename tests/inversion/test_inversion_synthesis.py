import copy
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.inversion import Inversion, Job, choose_targets, lse_lba_pool, measure_quality, pixel_range, synthesise
from densecl.inversion.competition import jensen_shannon, legacy_divergence
from densecl.inversion.priors import l2_norm, total_variation_l1, variation_energies
from densecl.inversion.settings import PUBLISHED
from densecl.inversion.statistics import BatchStatistics, moments
from densecl.inversion.synthesis import Loss, _factor, class_loss, coarse_logits
from densecl.models.network import Network
from densecl.runner.methods import parse_method
from densecl.settings.backbone import build_backbone

torch.set_num_threads(1)

MEAN, STD = torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.25)
RANGE = pixel_range(MEAN, STD)
BACKBONES = {
    "bisenet": {"encoder": "mini", "encoder_widths": (4, 8, 8, 8), "weights": "none", "width": 8, "spatial": (8, 8)},
    "deeplabv3": {"encoder": "mini", "encoder_widths": (4, 8, 8, 8), "weights": "none", "width": 8},
    "unet": {"width": 4, "depth": 2, "norm": "batch"},
}


def network(name="bisenet", outputs=4, seed=0):
    """A small network whose running statistics are of some images."""
    torch.manual_seed(seed)
    made = Network(build_backbone(name, BACKBONES[name]))
    made.grow(outputs)
    images = torch.rand(8, 3, 32, 32).sub(MEAN).div(STD)
    with torch.no_grad():
        for _ in range(20):
            made(images)
        for parameter in made.heads.parameters():
            parameter.mul_(8)  # logits that differ
    return made.eval()


def job(images=2, labels=(1, 2, 3), seed=0, start=None, outputs=4):
    return Job(choose_targets(labels, images, outputs, seed), (32, 32), seed, RANGE, start)


# ---- parts of the loss


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_are_those_of_numpy_and_their_gradient_is_right(layout):
    x = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1
    x = x.contiguous(memory_format=layout)
    mean, variance = moments(x)
    np.testing.assert_allclose(mean.numpy(), x.numpy().mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(variance.numpy(), x.numpy().var((0, 2, 3)), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda z: moments(z), (x.requires_grad_(),))


def test_the_distance_is_the_sum_over_layers_computed_by_hand():
    model = network()
    images = torch.randn(4, 3, 32, 32)
    inputs = {}
    handles = [
        m.register_forward_pre_hook(lambda m, i, name=name: inputs.update({name: i[0].detach().numpy()}))
        for name, m in model.named_modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    model(images)
    for handle in handles:
        handle.remove()
    expected, single = 0.0, 0
    for name, x in inputs.items():
        layer = model.get_submodule(name)
        if x.shape[2:] == (1, 1):
            single += 1
            continue
        d = np.linalg.norm(x.mean((0, 2, 3)) - layer.running_mean.numpy())
        d += np.linalg.norm(x.var((0, 2, 3)) - layer.running_var.numpy())
        expected += d * (7 if name in ("backbone.encoder.stem.1", "backbone.spatial.0.1") else 1)
    assert single == 2  # the attention refinements, behind a global average
    with BatchStatistics(model) as statistics:
        model(images)
        assert sum(m.first for m in statistics.found) == 2  # both paths begin at the image
        assert float(statistics.distance(first_weight=7).detach()) == pytest.approx(expected, rel=1e-4)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_a_network_without_running_statistics_is_refused_with_the_reason():
    torch.manual_seed(0)
    model = Network(build_backbone("unet", {"width": 4, "depth": 2, "norm": "instance"}))
    model.grow(4)
    with pytest.raises(SettingError, match=r"running statistics of BatchNorm.*unet\(norm=batch\)"):
        synthesise(model, job(), Inversion(iterations=2))


def test_priors_are_those_of_numpy():
    images = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    x = images.numpy()
    d = [
        x[..., 1:] - x[..., :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    ]
    np.testing.assert_allclose(variation_energies(images).numpy(), [(k**2).sum() for k in d], rtol=1e-5)
    np.testing.assert_allclose(total_variation_l1(images).numpy(), sum(np.abs(k).mean((1, 2, 3)) for k in d), rtol=1e-5)
    np.testing.assert_allclose(l2_norm(images).numpy(), np.sqrt((x**2).sum((1, 2, 3))), rtol=1e-5)


def test_the_competition_is_the_jensen_shannon_divergence():
    z = torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = (np.exp(k / 3) / np.exp(k / 3).sum(1, keepdims=True) for k in z.numpy())
    m = (p + q) / 2
    expected = 0.5 * ((p * np.log(p / m)).sum(1) + (q * np.log(q / m)).sum(1)).mean((1, 2))
    np.testing.assert_allclose(jensen_shannon(z[0], z[1]).numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(jensen_shannon(z[1], z[0]).numpy(), expected, rtol=1e-4)
    assert jensen_shannon(z[0], z[0]).abs().max() < 1e-6


def test_where_networks_disagree_the_true_form_is_log_2_and_the_legacy_form_saturates():
    first = torch.tensor([[60.0, 0.0], [9.0, 0.0]], requires_grad=True)
    second = torch.tensor([[0.0, 60.0], [0.0, 9.0]])
    true, legacy = jensen_shannon(first, second), legacy_divergence(first, second)
    assert true[0].item() == pytest.approx(math.log(2), abs=1e-5)
    assert legacy[0].item() == 1.0  # the published sum is 1.61 there, cut at 1
    p, q, m = np.array([0.99, 0.01]), np.array([0.01, 0.99]), np.array([0.5, 0.5])
    assert 0.5 * (m * np.log(m / p)).sum() + 0.5 * (m * np.log(m / q)).sum() == pytest.approx(1.614, abs=1e-3)
    (of_true,) = torch.autograd.grad(true.sum(), first, retain_graph=True)
    (of_legacy,) = torch.autograd.grad(legacy.sum(), first)
    assert of_true[1].abs().max() > 1e-3
    assert of_legacy[0].abs().max() == 0


def test_the_legacy_form_clamps_the_mean_over_images_and_places_once():
    z = 9 * torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = (np.exp(k / 3) / np.exp(k / 3).sum(1, keepdims=True) for k in z.numpy())
    m = ((p + q) / 2).clip(0.01, 0.99)
    p, q = p.clip(0.01, 0.99), q.clip(0.01, 0.99)
    places = 0.5 * ((m * np.log(m / p)).sum(1) + (m * np.log(m / q)).sum(1))
    assert places.max() > 1 > places.mean()  # clamping each place would be something else
    np.testing.assert_allclose(legacy_divergence(z[0], z[1]).numpy(), np.full(4, places.mean()), rtol=1e-5)


@pytest.mark.parametrize(("i", "expected"), [(0, 0.01), (99, 1.0), (100, 1.0), (550, 0.5), (999, 3.05e-6)])
def test_in_the_published_schedule_the_cosine_begins_where_the_warm_up_ends(i, expected):
    assert _factor(i, 1000, 100, "sequence") == pytest.approx(expected, rel=1e-2)


def test_published_settings_are_those_of_the_released_code():
    published = Inversion(**PUBLISHED)
    assert published.stages() == [(2, 2000), (1, 1000)]
    assert (published.lr, published.statistics, published.tv_l2, published.l2) == (0.2, 0.05, 1e-4, 1e-5)


def test_the_noise_at_the_start_is_clipped_unless_it_shall_not_be():
    for clipped in (True, False):
        settings = Inversion(iterations=1, init=2.0, clip_start=clipped)
        images = synthesise(network(), job(), settings).images  # as it was before the only step
        assert bool((images <= RANGE.high).all()) is clipped


def test_pooled_networks_compete_by_one_score_for_each_class():
    nets, targets = [network(), network(seed=1)], job().targets
    images = torch.randn(len(targets), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = {"competition": 1.0, "compete": "pooled", "statistics": 0.0, "tv_l2": 0.0, "l2": 0.0}
    with torch.no_grad():
        own, _ = Loss(nets, targets, Inversion(**settings), len(targets), None)(images)
        pooled = [lse_lba_pool(coarse_logits(net, images, 8)) for net in nets]
    torch.testing.assert_close(own, class_loss(pooled[0], targets, "softmax") + 1 - jensen_shannon(*pooled))


def test_a_random_beta_makes_other_images_and_is_drawn_from_the_seed():
    fixed, one, again = (
        synthesise(network(), job(), Inversion(iterations=3, random_beta=random)).images
        for random in (False, True, True)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, fixed)


def test_the_class_loss_wants_just_the_targets():
    pooled = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]).bool()
    x = pooled.numpy()
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    np.testing.assert_allclose(
        class_loss(pooled, targets, "softmax").numpy(), [-log_p[0, 1], -(log_p[1, 2] + log_p[1, 3]) / 2]
    )
    log_p = x[:, 1:] - np.log(np.exp(x[:, 1:]).sum(1, keepdims=True))
    np.testing.assert_allclose(
        class_loss(pooled, targets, "foreground").numpy(), [-log_p[0, 0], -(log_p[1, 1] + log_p[1, 2]) / 2]
    )
    s, t = 1 / (1 + np.exp(-x[:, 1:])), targets.numpy()[:, 1:]
    np.testing.assert_allclose(
        class_loss(pooled, targets, "sigmoid").numpy(), -np.where(t, np.log(s), np.log(1 - s)).sum(1)
    )


def test_every_class_is_wanted_as_often_and_background_never():
    targets = choose_targets((1, 3, 4), 5, 6, seed=0, per_image=3)
    assert targets.shape == (15, 6)
    assert not targets[:, [0, 2, 5]].any()
    assert all(targets[row, (1, 3, 4)[row % 3]] for row in range(15))
    assert set(targets.sum(1).tolist()) == {1, 2, 3}
    assert torch.equal(targets, choose_targets((1, 3, 4), 5, 6, seed=0, per_image=3))
    assert choose_targets((1, 2), 4, 3, seed=0).sum(1).tolist() == [1] * 8


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [((1, 4), 2, r"\[4\].*classes 1 to 3"), ((0, 1), 2, r"\[0\]"), ((), 2, "no class"), ((1,), 0, "at least one")],
)
def test_targets_that_cannot_be_are_refused(labels, images, message):
    with pytest.raises(SettingError, match=message):
        choose_targets(labels, images, 4, seed=0)


# ---- the synthesis


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_images_of_every_backbone_come_to_show_their_class_and_to_match_statistics(name):
    """A network that has learnt four colours finds them in images made from it alone."""
    epochs = 60 if name == "deeplabv3" else 40  # maps of 2x2 learn more slowly
    training = TRAINING.model_copy(update={"epochs": epochs, "lr": 1e-2, "warmup": 10})
    scenario = tiny_scenario(joint=True, images=24)
    loop = tiny_loop(parse_method("joint"), scenario, tiny_network(name, **BACKBONES[name]), training)
    loop.train([scenario.experiences[0]])
    model = loop.network
    targets = choose_targets((1, 2, 3, 4), 3, 5, seed=0)
    valid = pixel_range(*scenario.normalisation)
    settings = Inversion(iterations=60, batch=12, tv_l2=0.01)
    made = synthesise(model, Job(targets, (32, 32), 0, valid), settings).images
    noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(0)).clamp(valid.low, valid.high)
    assert (made >= valid.low).all()
    assert (made <= valid.high).all()
    mean, std = scenario.normalisation
    pixels = [((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8) for images in (made, noise)]
    ours, theirs = (measure_quality(images, targets, model, mean, std) for images in pixels)
    with torch.no_grad():
        pooled = [lse_lba_pool(coarse_logits(model.eval(), images, 8)) for images in (made, noise)]
    shows, does_not = (class_loss(scores, targets, "softmax").mean() for scores in pooled)
    assert shows < 0.9 * does_not
    if name != "deeplabv3":  # a stride of 16 is too coarse to find these squares, and its statistics are of 2x2 maps
        assert ours.distance < 0.6 * theirs.distance
        assert ours.shown > 0.8
        assert ours.shown > theirs.shown + 0.4
        assert ours.target_pixels > theirs.target_pixels


def test_logits_are_pooled_at_the_asked_stride():
    images = torch.randn(1, 3, 32, 32)
    for name in BACKBONES:
        model = network(name)
        assert coarse_logits(model, images, 8).shape[-2:] in ((4, 4), (2, 2))  # deeplabv3 has stride 16
        assert coarse_logits(model, images, 16).shape == (1, 4, 2, 2)


def test_the_teacher_is_left_as_it_was():
    model = network().train()
    model.backbone.encoder.eval()
    before = copy.deepcopy(model.state_dict())
    synthesise(model, job(), Inversion(iterations=3))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not model.backbone.encoder.training
    assert all(p.requires_grad and p.grad is None and p.is_contiguous() for p in model.parameters())


def test_equal_seeds_give_equal_images_and_others_do_not():
    model, settings = network(), Inversion(iterations=3)
    first, again, other = (synthesise(model, job(seed=seed), settings).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_best_image_is_kept_as_it_was_when_its_loss_was_measured():
    model = network()
    settings = Inversion(
        iterations=30, lr=3.0, warmup=0, statistics=0.0, tv_l2=0.0, l2=0.0, jitter=0, flip=False, coarse=0.4
    )
    made = synthesise(model, job(), settings)
    with torch.no_grad():
        pooled = coarse_logits(model, made.images, 8).flatten(2).exp().mean(2).log()  # r = 1
    own = class_loss(pooled, job().targets, "softmax")
    torch.testing.assert_close(own, made.losses, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("coarse", [0.0, 0.5])
@pytest.mark.parametrize("stop", [3, 5, 9])
def test_an_interrupted_batch_goes_on_to_the_same_bits(coarse, stop, monkeypatch):
    monkeypatch.setattr("densecl.inversion.synthesis.KEEP_EVERY", -1.0)
    model, settings, states = network(), Inversion(iterations=12, coarse=coarse), []

    def keep(state):
        states.append({name: tensor.clone() for name, tensor in state.items()})

    whole = synthesise(model, job(), settings, keep=keep)
    assert len(states) == 12
    rest = []
    again = synthesise(model, job(), settings, kept=states[stop - 1], progress=rest.append)
    assert rest == list(range(stop + 1, 13))
    assert torch.equal(again.images, whole.images)
    assert torch.equal(again.losses, whole.losses)


def test_two_processes_match_the_statistics_of_all_images():
    """Two threads, each with half of the images and a sum over both, end where one with all of them does."""
    model, settings = network(), Inversion(iterations=6, lr=0.05)
    start = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.5
    whole = synthesise(model, job(start=start), settings)
    barrier, box, parts = threading.Barrier(2), {}, {}

    def work(rank):
        def reduce(value):
            box[rank] = value
            barrier.wait(60)
            total = box[0] + box[1]
            barrier.wait(60)
            return total

        rows = slice(0, 2) if rank == 0 else slice(2, 6)  # unequal shares
        part = Job(job().targets[rows], (32, 32), 0, RANGE, start[rows])
        parts[rank] = synthesise(model, part, settings, reduce=reduce)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    together = torch.cat([parts[0].images, parts[1].images])
    torch.testing.assert_close(together, whole.images, rtol=0, atol=0.02)
    alone = synthesise(model, Job(job().targets[:2], (32, 32), 0, RANGE, start[:2]), settings)
    assert (alone.images - whole.images[:2]).abs().max() > 0.05  # its own statistics would lead elsewhere


def test_competition_makes_a_student_disagree_more():
    model, student = network(), network(seed=1)
    base = Inversion(iterations=40, classification=0.1)
    found = []
    for weight in (0.0, 30.0):
        settings = Inversion(**{**base.__dict__, "competition": weight})
        images = synthesise(model, job(), settings, student=student).images
        with torch.no_grad():
            logits = (coarse_logits(net, images, 8) for net in (model, student))
            found.append(jensen_shannon(*logits).mean())
    assert found[1] > found[0]


def test_bfloat16_is_close_to_float32():
    model = network()
    losses = [
        synthesise(model, job(), Inversion(iterations=20, precision=precision)).losses.mean().item()
        for precision in ("fp32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
