"""Tasks: what goes in, what should come out, what it costs, how it is scored."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from densecl.data.styles import style_image
from densecl.errors import DataError, SettingError
from densecl.losses import cross_entropy
from densecl.models.loss_network import build_loss_network
from densecl.palette import palette
from densecl.tasks import KINDS, Segmentation
from densecl.tasks.autoencoding import Autoencoding
from densecl.tasks.colorization import Colorization
from densecl.tasks.style_transfer import StyleTransfer


class Targets(NamedTuple):
    target: Tensor
    weight: Tensor | None = None


def images(n=4, side=24, seed=0):
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 256, (n, 3, side // 4, side // 4), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    return torch.from_numpy(smooth)


def masks(n=4, side=24, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 1, (n, side, side), dtype=np.uint8)
    labels[:, 0] = 255
    return torch.from_numpy(labels)


def painting(name="waves", **settings):
    style = torch.from_numpy(style_image(name)).permute(2, 0, 1)
    return StyleTransfer(name, style, build_loss_network("random"), **settings)


def every_task():
    return [
        Segmentation("seg", classes=3),
        Colorization("colour"),
        painting(normalised=True, content_weight=2.0, style_weight=1.0),
        Autoencoding("copy"),
    ]


def outputs(task, n=4, side=24, seed=1):
    return torch.randn(n, task.outputs, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("task", every_task(), ids=lambda task: task.kind)
def test_every_task_prepares_learns_scores_and_shows(task):
    image, mask = images(), masks()
    before = image.clone()
    prepared = task.prepare(image, mask)
    assert task.kind in KINDS
    assert prepared.image.shape == image.shape
    assert prepared.target.shape == (4, 24, 24) if task.kind == "segmentation" else (4, task.outputs, 24, 24)
    logits = outputs(task).requires_grad_()
    loss = task.loss(logits, Targets(prepared.target))
    assert loss.shape == ()
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0
    scores = task.metrics()
    scores.update(logits.detach(), image, prepared.target)
    assert np.isfinite(task.score(scores.compute()))
    for shown in task.picture(image[0], logits[0].detach(), mask[0]):
        assert (shown.shape, shown.dtype) == ((3, 24, 24), torch.uint8)
    assert torch.equal(image, before)


@pytest.mark.parametrize("task", every_task(), ids=lambda task: task.kind)
def test_scores_of_two_processes_are_those_of_all_images(task):
    image, mask, logits = images(), masks(), outputs(task)
    target = task.prepare(image, mask).target
    whole, one, two = (task.metrics() for _ in range(3))
    whole.update(logits, image, target)
    one.update(logits[:1], image[:1], target[:1])
    two.update(logits[1:], image[1:], target[1:])
    one.sums = one.sums + two.sums
    assert one.sums.shape == whole.sums.shape
    for key, value in whole.compute().items():
        flat = [value["all"]] if key == "miou" else value
        other = one.compute()[key]
        assert ([other["all"]] if key == "miou" else other) == pytest.approx(flat, rel=1e-5)


@pytest.mark.parametrize("task", every_task(), ids=lambda task: task.kind)
def test_a_sample_of_no_weight_changes_nothing(task):
    image, mask = images(), masks()
    logits, target = outputs(task), task.prepare(image, mask).target
    weighted = task.loss(logits, Targets(target, torch.tensor([1.0, 1, 1, 0])))
    without = task.loss(logits[:3], Targets(target[:3]))
    torch.testing.assert_close(weighted, without)


def test_metrics_have_a_direction():
    better = {"miou": {"all": 0.7}}
    worse = {"miou": {"all": 0.5}}
    assert Segmentation("s").forgetting(better, worse) == pytest.approx(0.2)
    assert Colorization("c").forgetting({"mse": 100.0}, {"mse": 150.0}) == 50


def test_tasks_and_their_settings_can_be_read_without_torch():
    code = "import sys; from densecl.settings.task_recipe import KINDS, kind_class; import densecl.tasks\n"
    code += "[kind_class(kind).declared() for kind in KINDS]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- segmentation


def test_segmentation_is_cross_entropy_and_mean_iou():
    task, mask = Segmentation("seg", classes=3), masks()
    target = task.prepare(images(), mask).target
    logits = outputs(task)
    assert task.outputs == 4
    assert task.loss(logits, Targets(target)) == cross_entropy(logits, target)
    scores = task.metrics()
    scores.update(logits.argmax(1), images(), target)  # labels do as well as logits
    prediction, truth = logits.argmax(1).numpy(), mask.numpy()
    valid = truth != 255
    expected = [
        ((prediction == c) & (truth == c))[valid].sum() / ((prediction == c) | (truth == c))[valid].sum()
        for c in range(4)
    ]
    assert scores.compute()["iou"] == pytest.approx(expected)
    assert scores.compute()["miou"]["all"] == pytest.approx(np.mean(expected))


def test_what_does_not_occur_is_not_averaged():
    task = Segmentation("seg", classes=3, has_background=False)
    scores = task.metrics()
    truth = torch.tensor([[[1, 1, 2, 2]]])
    scores.update(torch.tensor([[[1, 1, 2, 1]]]), images(1), truth)
    assert scores.compute() == {"miou": {"all": pytest.approx((2 / 3 + 1 / 2) / 2)}, "iou": [None, 2 / 3, 0.5, None]}


def test_segmentation_of_classes_that_arrive_does_not_know_its_outputs():
    task = Segmentation("voc", has_background=False)
    assert task.outputs is None
    assert (task.kind, task.primary, task.has_background) == ("segmentation", "miou", False)
    with pytest.raises(SettingError, match="does not say how many classes"):
        task.metrics()


def test_labels_are_shown_in_vocs_colours():
    mask = torch.tensor([[0, 1], [20, 255]], dtype=torch.uint8)
    picture = Segmentation("seg", classes=20).picture(images(1)[0], mask, mask)
    colours = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    assert picture.output[:, 1, 0].tolist() == colours[20].tolist()
    assert torch.equal(picture.output, picture.truth)


# ---- colorization


def test_colorization_sees_luminance_alone():
    task, image = Colorization("c"), images()
    prepared = task.prepare(image, masks())
    r, g, b = image.numpy().astype(float).transpose(1, 0, 2, 3)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    for channel in range(3):
        np.testing.assert_allclose(prepared.image[:, channel].numpy(), y, atol=1e-4)
    chroma = np.stack([(b - y) / 1.772, (r - y) / 1.402], 1)
    np.testing.assert_allclose(prepared.target.numpy() * 50, chroma, atol=1e-3)
    logits = outputs(task)
    expected = ((logits.numpy() - prepared.target.numpy()) ** 2).mean()
    assert task.loss(logits, Targets(prepared.target)).item() == pytest.approx(expected, rel=1e-6)


def test_colorization_scores_what_a_viewer_sees():
    task, image = Colorization("c"), images()
    target = task.prepare(image, masks()).target
    perfect, grey, off = (task.metrics() for _ in range(3))
    perfect.update(target, image, target)
    found = perfect.compute()
    assert found["mse"] == 0
    assert found["ssim"] == pytest.approx(1, abs=1e-6)
    assert found["mse_chroma"] == 0
    grey.update(torch.zeros_like(target), image, target)
    found = grey.compute()
    assert found["mse"] == found["baseline"] > 0
    assert (
        found["mse_chroma"] == found["baseline_chroma"] == pytest.approx((target * 50).square().mean().item(), rel=1e-5)
    )
    y = image.float().mul(torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).round()
    assert found["mse"] == pytest.approx((y - image).square().mean().item(), rel=1e-5)
    off.update(target + 0.2, image, target)
    assert off.compute()["mse_chroma"] == pytest.approx(100, rel=1e-4)  # 0.2 * 50 squared, on the scale of 0..255


def test_the_scale_of_chroma_changes_the_loss_and_no_score():
    image = images()
    scores = []
    for scale in (1.0, 50.0):
        task = Colorization("c", scale=scale)
        target = task.prepare(image, masks()).target
        metrics = task.metrics()
        metrics.update(target * 0.5, image, target)
        scores.append(metrics.compute())
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    assert Colorization("c", scale=1.0).settings != Colorization("c").settings


# ---- style transfer


def test_style_loss_is_content_and_style_of_the_paper():
    """Gram matrices over C H W, weights 1e5 and 1e10, images in ImageNet's normalisation: all by hand."""
    network = build_loss_network("vgg16", "none", seed=1)
    style, image = images(1, 32, seed=5)[0], images(2, 32)
    task = StyleTransfer("s", style, network)
    logits = outputs(task, 2, 32)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def maps(rgb):
        """Through the layers themselves: relu1_2, 2_2, 3_3, 4_3."""
        x = torch.from_numpy((rgb / 255 - mean) / std).float()
        found = []
        for i, layer in enumerate(network.features):
            x = layer(x)
            found += [x.numpy().astype(float)] if i in (3, 8, 15, 22) else []
        return found

    def gram(f):
        flat = f.reshape(f.shape[0], -1)
        return flat @ flat.T / f.size

    made, wanted = maps(logits.numpy().astype(float) * 63.75 + 127.5), maps(image.numpy().astype(float))
    painted = maps(style[None].numpy().astype(float))
    content = ((made[1] - wanted[1]) ** 2).mean()
    styles = (
        sum(((gram(m[b]) - gram(p[0])) ** 2).mean() for m, p in zip(made, painted, strict=True) for b in (0, 1)) / 2
    )
    loss = task.loss(logits, Targets(task.prepare(image, masks()).target)).item()
    assert loss == pytest.approx(1e5 * content + 1e10 * styles, rel=1e-3)
    assert task.settings["loss_network"] == "vgg16 (random, seed 1)"


def test_grams_of_the_style_are_made_once():
    network, calls = build_loss_network("random"), []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    task = StyleTransfer("s", images(1, 48)[0], network)
    assert calls == [1]
    target = task.prepare(images(), masks()).target
    for _ in range(3):
        task.loss(outputs(task), Targets(target))
    assert calls == [1] + [4] * 6  # content and output of each batch, the style never again


@pytest.mark.parametrize("name", ["swirls", "waves"])
def test_returning_the_input_costs_the_baseline(name):
    task, image = painting(name, normalised=True, content_weight=2.0, style_weight=1.0), images(side=48)
    target = task.prepare(image, masks(side=48)).target
    scores = task.metrics()
    scores.update(target, image, target)
    found = scores.compute()
    assert found["total_loss"] == pytest.approx(found["baseline"], rel=1e-5)
    assert found["content_loss"] == pytest.approx(0, abs=1e-6)
    assert found["ssim"] == pytest.approx(1, abs=1e-6)
    assert found["baseline"] > 1  # there is something to gain


def test_the_style_image_itself_has_no_style_loss():
    style = torch.from_numpy(style_image("waves")).permute(2, 0, 1)
    task = painting("waves", normalised=True, content_weight=1.0, style_weight=1.0)
    terms = task.terms(task.prepare(style[None], style[:1]).target, task.prepare(images(1, 96), masks(1, 96)).target)
    assert terms.style.item() == pytest.approx(0, abs=1e-6)
    assert terms.untouched.item() > 1
    # normalised: the content term is in units of the variance of the style's own map
    maps = build_loss_network("random")(style[None].float() / 255)[1]
    other = build_loss_network("random")(images(1, 96).float() / 255)[1]
    assert terms.content.item() == pytest.approx(((maps - other).square().mean() / maps.var()).item(), rel=1e-4)


def test_gradients_of_the_style_loss_do_not_reach_its_network():
    task = painting()
    task.loss(outputs(task).requires_grad_(), Targets(task.prepare(images(), masks()).target)).backward()
    assert all(parameter.grad is None for parameter in task.extractor.parameters())


def test_settings_tell_styles_apart():
    swirls, waves = painting("swirls"), painting("waves")
    assert swirls.settings["style"] != waves.settings["style"]
    assert {**swirls.settings, "style": ""} == {**waves.settings, "style": ""}
    assert len({swirls, waves}) == 2


def test_what_style_transfer_refuses():
    with pytest.raises(DataError, match="style image is 2x2"):
        StyleTransfer("s", torch.zeros(3, 2, 2, dtype=torch.uint8), build_loss_network("random"))
    task = painting()
    with pytest.raises(ValueError, match="weight has shape"):
        task.loss(outputs(task), Targets(task.prepare(images(), masks()).target, torch.ones(4, 24, 24)))


# ---- autoencoding


@pytest.mark.parametrize(("loss", "of"), [("l1", np.abs), ("l2", np.square)])
def test_autoencoding_is_a_distance_to_the_input(loss, of):
    task, image = Autoencoding("a", loss=loss), images()
    target = task.prepare(image, masks()).target
    logits = outputs(task)
    expected = of(logits.numpy() - (image.numpy() - 127.5) / 63.75).mean()
    assert task.loss(logits, Targets(target)).item() == pytest.approx(expected, rel=1e-5)
    scores = task.metrics()
    scores.update(target, image, target)
    found = scores.compute()
    assert (found["mse"], found["ssim"]) == (0, pytest.approx(1, abs=1e-6))
    mean = image.numpy().mean((2, 3), keepdims=True).round()
    assert found["baseline"] == pytest.approx(((image.numpy() - mean) ** 2).mean(), rel=1e-5)
