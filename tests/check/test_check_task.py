"""`check_task`: each fault of a kind of task is one finding in words."""

import pytest
import torch

from densecl.check.dispatch import check
from densecl.check.task import check_task
from densecl.errors import SettingError
from densecl.losses.images import squared_error
from densecl.settings.task_recipe import KINDS, kind_class
from densecl.tasks import Picture, Prepared, Segmentation, Task
from densecl.tasks.colorization import Colorization

pytestmark = pytest.mark.usefixtures("one_thread")

NEEDED = {"style_transfer": {"style": "swirls", "loss_network": "random", "normalised": True, "style_weight": 1.0}}


@pytest.mark.parametrize("kind", KINDS)
def test_packaged_kinds_have_no_fault(kind):
    assert check_task(kind_class(kind), NEEDED.get(kind)) == []


def test_a_critic_is_tried():
    assert check_task(kind_class("autoencoding"), {"loss": "adversarial"}) == []


class Image(Colorization):
    """Right but for what a test changes."""

    kind = "image"


class Labels(Segmentation):
    """The same, with masks."""

    kind = "labels"


def changed(base, **members):
    return type("Mine", (base,), members)


def grey(self, image, mask):
    return Prepared(image, image.float().mean(1) / 255)


def in_place(self, image, mask):
    return Prepared(image.zero_(), image[:, :2].float())


def unweighted(self, logits, batch):
    return squared_error(logits, batch.target)


def careless(self, logits, batch):
    losses = torch.nn.functional.cross_entropy(logits, batch.target.clamp(max=4), reduction="none").mean((1, 2))
    weight = torch.ones_like(losses) if batch.weight is None else batch.weight
    return (losses * weight).sum() / weight.sum()


def broken(self, logits, batch):
    raise RuntimeError("not today")


class Careless:
    """Pixel accuracy, void ones among them."""

    def __init__(self):
        self.sums = torch.zeros(2)

    def update(self, output, image, target):
        labels = output.argmax(1) if output.ndim == 4 else output
        self.sums = self.sums + torch.tensor([(labels == target.clamp(max=4)).sum(), target.numel()])

    def compute(self):
        return {"miou": {"all": float(self.sums[0] / self.sums[1])}}


class Last(Careless):
    """Of the last batch alone."""

    def update(self, output, image, target):
        self.sums = (output[-1] - target[-1]).square().mean().repeat(1)

    def compute(self):
        return {"mse": float(self.sums[0])}


FAULTS = {
    "no metric": (changed(Task, kind="k", prepare=grey, loss=unweighted), ["has no primary"]),
    "a method that is missing": (
        changed(Task, kind="k", primary="p", outputs=1, prepare=grey, loss=unweighted),
        ["Mine.scores is not written", "Mine.picture is not written"],
    ),
    "no number of outputs": (changed(Image, outputs=None), ["outputs is None"]),
    "a target of a wrong type": (changed(Image, prepare=grey), ["target", "(4, 32, 32) and type float32"]),
    "an image changed in place": (changed(Image, prepare=in_place), ["prepare changed the image"]),
    "a loss for each pixel": (
        changed(Image, loss=lambda self, logits, batch: (logits - batch.target).square().mean(1)),
        ["loss returned a tensor of shape (4, 32, 32)", "one number"],
    ),
    "a loss without gradient": (
        changed(Image, loss=lambda self, logits, batch: logits.detach().mean()),
        ["loss returned a tensor without gradient"],
    ),
    "a loss that is not finite": (
        changed(Image, loss=lambda self, logits, batch: logits.mean() * float("inf")),
        ["loss is", "must be finite"],
    ),
    "a distance that is a number": (
        changed(Image, distillation=lambda self, logits, teacher: 1.0),
        ["distillation returned a float"],
    ),
    "a loss that forgets weights": (changed(Image, loss=unweighted), ["whose weight is 0"]),
    "a loss that raises": (changed(Image, loss=broken), ["loss: in test_check_task.py:", "RuntimeError: not today"]),
    "a loss that counts void": (changed(Labels, loss=careless), ["loss depends", "void"]),
    "metrics that count void": (changed(Labels, metrics=lambda self: Careless()), ["metrics depend", "void"]),
    "a primary metric that is not there": (changed(Image, primary="psnr"), ["metrics:", "KeyError: 'psnr'"]),
    "a metric that looks away": (changed(Image, metrics=lambda self: Last()), ["two processes"]),
    "a metric of the wrong direction": (
        changed(Image, higher_is_better=True),
        ["mse went from", "while the loss fell"],
    ),
    "a picture of numbers": (
        changed(Image, picture=lambda self, image, output, mask: Picture(image, output, image)),
        ["picture: output is a tensor of shape (2, 32, 32) and type float32"],
    ),
    "a state that cannot be saved": (
        changed(Image, state_dict=lambda self: {"own": Picture}),
        ["state_dict:"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(fault):
    cls, words = FAULTS[fault]
    findings = " | ".join(check_task(cls))
    assert all(word in findings for word in words), findings


def test_values_that_do_not_fit_are_no_fault_of_the_kind():
    with pytest.raises(SettingError, match=r"Colorization.scale' cannot be 0"):
        check_task(Colorization, {"scale": 0})
    with pytest.raises(SettingError, match="needs a style"):
        check_task(kind_class("style_transfer"))


def test_the_command_tries_a_kind_of_a_user(tmp_path):
    path = tmp_path / "mine.py"
    source = "from densecl.tasks.colorization import Colorization\n\nclass Mine(Colorization):\n    kind = 'mine'\n"
    path.write_text(source)
    assert check(f"{path}:Mine(scale=2.0)") == ([], "targets, losses, metrics, void pixels, picture, state")
    with pytest.raises(SettingError, match=r"Mine.scale' cannot be 0"):
        check(f"{path}:Mine(scale=0)")
    broken = tmp_path / "broken.py"
    broken.write_text(f"{source}    def loss(self, logits, batch):\n        return logits / 0 + nothing\n")
    findings, _ = check(f"{broken}:Mine")
    assert findings == ["loss: in broken.py:6, NameError: name 'nothing' is not defined"]
