"""Tiny runs of every method of the catalogue, each trained once in a session and then compared."""

import copy
from functools import cache
from typing import NamedTuple

import torch

from densecl.check.tiny import BISENET, TRAINING, tiny_backbone, tiny_loop, tiny_network, tiny_scenario, tiny_sequence
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.settings.catalogue import entries
from densecl.training.batch import normalise
from densecl.training.loop import Loop

SWIN = {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "img_size": 32}
VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32}
NETWORKS = {
    "allmlp": {"encoder": "swin_tiny_patch4_window7_224", "weights": "none", "width": 8}
    | {f"encoder.{key}": value for key, value in SWIN.items()},
    "bisenet": BISENET,
    "deeplabv3": {"encoder": "mini", "weights": "none", "width": 8, "encoder_widths": (8, 8, 12, 16)},
    "fcn": {"encoder": "mini", "weights": "none", "encoder_widths": (8, 8, 12, 16)},
    "resblock": {"width": 4, "blocks": 1, "norm": "batch"},
    "trunk": {"encoder": "resnet10t", "weights": "none"},
    "unet": {"width": 4, "depth": 2, "norm": "batch"},
    "upernet": {"encoder": "mini", "weights": "none", "width": 8, "finest": 8, "encoder_widths": (8, 8, 12, 16)},
    "vit": {"encoder": "vit_tiny_patch16_224", "weights": "none", "width": 8, "maps": 3}
    | {f"encoder.{key}": value for key, value in VIT.items()},
    "wrn": {"depth": 10, "width": 1},
}
TRANSFORMERS = {  # backbones that cost more than they tell, and the methods that they are tried with
    "allmlp": {"dkd", "mib", "piggyback", "plop"},
    "upernet": {"mib", "plop", "piggyback"},
    "trunk": {"finetune"},  # for whole images: `tests/runner/test_whole_images.py`
    "vit": {"finetune+ewf", "finetune+lora", "plop"},
    "wrn": {"mib", "piggyback"},
}
OWN_BACKBONE = {"decoder": "unet", "resblock": "resblock"}  # of strategies that cannot use any
RAW = {"allmlp", "bisenet", "deeplabv3", "fcn", "upernet", "vit"}  # backbones with stages before their last activation
NONNEGATIVE = {
    "allmlp",
    "bisenet",
    "deeplabv3",
    "fcn",
    "resblock",
    "upernet",
    "vit",
    "wrn",
}  # backbones whose decoded map is never below 0
ROWS = set(NETWORKS) - {"resblock"}  # backbones with heads that are 1x1 convolutions
PREPARES = {"nest", "lora"}  # plugins that make a step's beginning and keep nothing
SHORT = {"deepinversion": "(iterations=20,images_per_class=4)"}  # of its default work, which only repeats itself
NAMED = [
    entry.name if entry.kind == "strategy" else f"finetune+{entry.name}{SHORT.get(entry.name, '')}"
    for entry in entries("strategies")
]


def learns(text, kind):
    """True if a method and all its plugins can learn a stream of classes or of tasks."""
    method = parse_method(text)
    parts = (method.strategy, *method.plugins)
    return all(kind in getattr(part.cls, "streams", {"classes"}) for part in parts)


CLASSES = [
    *(name for name in NAMED if learns(name, "classes")),
    "mib+replay",
    "mib+ewc+replay",
    "mib+ewf",
    "plop+ewf",
    "mib+nest",
    "plop+nest",
    "mib+replay(memory=8,policy=greedy,batch=half,replay_loss=augmented)",
    "mib+replay(memory=8,policy=balanced,replay_loss=augmented)",
    "dkd+replay(memory=8,policy=balanced,batch=joined)",
    "dkd+replay(memory=8,policy=random,labels=published)",
    "star+replay(memory=8,policy=balanced,batch=joined)",
    "ssul+replay(memory=8,policy=balanced,batch=half)",
]
TASKS = [
    *(name for name in NAMED if learns(name, "tasks")),
    "piggyback(bn=trained,mask_lr=0.01)",
    "piggyback(masks=ternary,init=random,mask_optimizer=sgd,scale_gradients=True,mask_lr=0.1)",
    "piggyback(mask_first=True,bn=trained)",
    "resblock(training=sequential)",
    "resblock(training=alternating,blocks=2)",
    "wsn(mask=last_batch,sparsity=0.8)",
    "taps(from_epoch=0,weight=20,initial=0.11)",
]
CASES = [*((name, "classes") for name in CLASSES), *((name, "tasks") for name in TASKS)]


class Trained(NamedTuple):
    """A loop after its last step (change nothing in it), the network's state after step 0 and after the last one, the
    evaluations after each step, and of a sequence each task's logits after each step."""

    loop: Loop
    first: dict
    last: dict
    evaluations: list
    logits: list


def is_stock(text):
    """True for a method with one of Avalanche's plugins, which has no state."""
    return any(part.stock for part in parse_method(text).plugins)


def shares(text):
    """True if step 0 of a method is plain training."""
    method = parse_method(text)
    cls = method.strategy.cls
    plain = all(getattr(part.cls, "first_step", "own") == "shared" for part in method.plugins)
    return cls.shares_first_step(method.strategy.values) and plain


def own_backbone(text):
    """The backbone that a method is tried on: the one that it needs, where it cannot use any."""
    method = parse_method(text)
    if any("attention" in getattr(part.cls, "needs", ()) for part in method.plugins):
        return "vit"
    return OWN_BACKBONE.get(method.strategy.name, "bisenet")


def plain(text, kind):
    """The method of plain training on the stream of another."""
    return "classifier" if kind == "classes" and parse_method(text).told else "finetune"


def made(text, kind, backbone=None, seed=0, training=TRAINING):
    """The loop of a method on a tiny stream."""
    method = parse_method(text)
    if kind == "tasks":
        network = (
            tiny_backbone(method) if method.strategy.name == "resblock" else tiny_network("unet", **NETWORKS["unet"])
        )
        return tiny_loop(method, tiny_sequence(), network, training, seed=seed)
    backbone = backbone or own_backbone(text)
    scenario = tiny_scenario(joint=method.joint, by_task=method.told)
    return tiny_loop(method, scenario, tiny_network(backbone, **NETWORKS[backbone]), training, seed=seed)


@torch.no_grad()
def outputs(loop, head):
    """Logits of a head for its first test images."""
    loop.strategy.select_task(head)
    samples = loop.scenario.tests_of(head)
    images = torch.stack([samples[i].image for i in range(4)])
    image = loop.stream.tasks[head].prepare(images, images[:, 0]).image
    return loop.network.eval()(normalise(image, *loop.normalisation)).logits.clone()


def trained(text, kind, backbone=None):
    """A method trained on all steps, once in a session."""
    return _trained(text, kind, "" if kind == "tasks" else backbone or own_backbone(text))


@cache
def _trained(text, kind, backbone):
    loop, evaluations, logits, first = made(text, kind, backbone), [], [], {}
    for experience in loop.scenario.experiences:
        loop.train([experience])
        first = first or copy.deepcopy(loop.network.state_dict())
        evaluations.append(evaluate(loop, experience.step, 4))
        if loop.stream.by_task:
            logits.append([outputs(loop, head) for head in range(experience.step + 1)])
            loop.strategy.select_task(experience.step)
    return Trained(loop, first, copy.deepcopy(loop.network.state_dict()), evaluations, logits)


def same(one, other):
    """True if two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
