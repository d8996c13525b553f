"""Labels painted in colours and learnt as an image: colours there and back, losses in NumPy, void, a whole run."""

import numpy as np
import pytest
import torch
from test_tasks_adversarial import Targets

from densecl.check.task import check_task
from densecl.cli import main
from densecl.losses import critic_loss, deception_loss
from densecl.models.patchgan import initialised
from densecl.palette import palette
from densecl.records.record import read_record
from densecl.tasks import Context
from densecl.tasks.autoencoding import Autoencoding
from densecl.tasks.painted_labels import PaintedLabels, unpainted
from densecl.tasks.segmentation import paint

COLOURS = np.frombuffer(palette(), np.uint8).reshape(256, 3).astype(float)
NAMES = ("a", "b", "c")


def task(loss="l1"):
    return PaintedLabels.build("p", {"loss": loss}, Context(class_names=NAMES))


def sample(side=8):
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(4, (2, side, side), generator=generator)
    mask[0, :3] = 255
    return torch.randint(256, (2, 3, side, side), generator=generator).to(torch.uint8), mask.to(torch.uint8)


def test_colours_of_all_labels_are_read_back():
    labels = torch.arange(256).view(1, 16, 16)
    assert unpainted(paint(labels[0])[None].float()).equal(labels)


@pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
def test_the_loss_is_the_distance_to_the_painted_labels_without_void(loss, power):
    (image, mask), made = sample(), torch.randn(2, 3, 8, 8)
    own = task(loss)
    prepared = own.prepare(image, mask)
    wanted = (COLOURS[mask.numpy()] - 127.5) / 63.75
    distance = np.abs(made.double().numpy().transpose(0, 2, 3, 1) - wanted) ** power
    expected = distance[mask.numpy() != 255].mean()
    assert own.loss(made, Targets(prepared.target)).item() == pytest.approx(expected, rel=1e-6)
    assert own.settings == Autoencoding("a", loss=loss).settings


def test_a_pixel_is_the_class_of_the_nearest_colour():
    made = torch.randn(2, 3, 8, 8)
    rgb = made.double().numpy().transpose(0, 2, 3, 1) * 63.75 + 127.5
    expected = ((rgb[..., None, :] - COLOURS[:4]) ** 2).sum(-1).argmin(-1)
    assert task().nearest(made).numpy().tolist() == expected.tolist()


def test_labels_are_scored_as_those_of_segmentation():
    (image, mask), own = sample(), task()
    prepared = own.prepare(image, mask)
    metrics = own.metrics()
    wrong = prepared.target.clone()
    wrong[1, :, 0] = torch.from_numpy((COLOURS[3] - 127.5) / 63.75).float().view(3, 1)
    metrics.update(wrong, image, prepared.target)
    expected = np.zeros((4, 4), int)
    predicted = mask.clone()
    predicted[1, 0] = 3
    for truth, label in zip(mask.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if truth != 255:
            expected[truth, label] += 1
    assert metrics.sums.tolist() == expected.tolist()
    assert own.score(metrics.compute()) == pytest.approx(metrics.compute()["miou"]["all"])
    assert metrics.compute()["miou"]["all"] < 1


def test_the_critic_sees_the_colour_of_void_where_nothing_is_known():
    (image, mask), own = sample(24), PaintedLabels("p", loss="adversarial", critic=initialised(0, width=8, strided=2))
    target, made, known = own.prepare(image, mask).target, torch.randn(2, 3, 24, 24), (mask != 255)[:, None]
    seen = made.where(known, (torch.tensor([224.0, 224.0, 192.0]).view(3, 1, 1) - 127.5) / 63.75)
    expected = 100 * (made - target).abs().mean(1)[known[:, 0]].mean() + deception_loss(own.critic(seen)).mean()
    torch.testing.assert_close(own.loss(made, Targets(target)), expected)
    critic_loss(own.critic(target), own.critic(seen)).backward()
    wanted = [p.grad.clone() for p in own.critic.parameters()]
    own.update_critic(made, Targets(target))
    for p, gradient in zip(own.critic.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize("loss", ["l1", "adversarial"])
def test_the_kind_passes_the_check_of_kinds(loss):
    assert check_task(PaintedLabels, {"loss": loss}) == []


def test_a_run_is_scored_restored_and_evaluated_to_the_same_matrix(tmp_path, capsys):
    words = ["-b", "shapes-2tasks-l2", "-s", "finetune", "--backbone", "unet(width=2,depth=2)", "--quiet"]
    short = ["training.iterations=2", "training.later.iterations=2", "training.batch=2", "training.warmup=0"]
    assert main(["run", *words, "--output", str(tmp_path), *(w for s in short for w in ("--set", s))]) == 0
    [path] = tmp_path.rglob("result.json")
    record = read_record(path)
    figures = record.steps[1].evaluations[1]
    assert len(figures.confusion) == len(record.tasks[1].class_names) == len(figures.metrics["iou"]) == 5
    capsys.readouterr()
    assert main(["evaluate", str(path.parent), "--task", "figures"]) == 0
    assert f"{100 * figures.metrics['miou']['all']:.1f}" in capsys.readouterr().out
