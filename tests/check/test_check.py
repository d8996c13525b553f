"""`densecl check`: each fault of a method is one finding in words."""

import pytest

from densecl.check.check import check_method
from densecl.cli import main
from densecl.errors import DenseCLError

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = """
import math
import torch
from torch import nn
from densecl import Batch, Plugin, Strategy
from densecl.losses import distillation


class Mine({base}):
"""


@pytest.fixture
def method(tmp_path):
    """Writes the body of a class to mine.py and gives the text that names it."""

    def write(body, base="Strategy"):
        lines = "".join(f"    {line}\n" if line else "\n" for line in body.strip("\n").splitlines())
        (tmp_path / "mine.py").write_text(HEAD.format(base=base) + lines)
        return f"{tmp_path}/mine.py:Mine"

    return write


FAULTS = {
    "a loss that is not finite": (
        "def pixel_loss(self, logits, batch):\n    return logits.mean() * math.nan",
        ["pixel_loss is nan at step 0", "finite"],
    ),
    "a regulariser that is not finite": (
        "def regulariser(self, output, batch, teacher_output):\n    return output.logits.mean() / 0",
        ["regulariser is ", "inf", "at step 1"],
    ),
    "a hyper-parameter without annotation": ("weight = 2.0", ["Mine.weight has no annotation", "weight: float = 2.0"]),
    "a hyper-parameter without value": ("weight: float", ["Mine.weight has no default value"]),
    "a default that its annotation refuses": ("weight: int = 0.5", ["Mine.weight", "0.5"]),
    "a loss with one number a pixel": (
        "def pixel_loss(self, logits, batch):\n    return logits.mean(1)",
        ["pixel_loss returned a tensor of shape (6, 32, 32)", "one number"],
    ),
    "a regulariser that is no tensor": (
        "def regulariser(self, output, batch, teacher_output):\n    return 0.0",
        ["regulariser returned a float"],
    ),
    "a loss without gradient": (
        "def task_loss(self, output, batch, teacher_output):\n    return output.logits.detach().mean()",
        ["task_loss returned a tensor without gradient"],
    ),
    "predictions of a wrong shape": (
        "def predict(self, output):\n    return output.logits",
        ["predict returned a tensor of shape (4, 3, 32, 32)", "(B, H, W) = (4, 32, 32)"],
    ),
    "predictions that are no labels": (
        "def predict(self, output):\n    return output.logits.amax(1)",
        ["predict returned numbers of type torch.float32"],
    ),
    "predictions of an output that is not there": (
        "def predict(self, output):\n    return output.logits.argmax(1) + 7",
        ["predict returned the label", "outputs 0 to 2"],
    ),
    "an old head that changed its size in before_step": (
        "def before_step(self, experience):\n"
        "    if self.step == 1:\n"
        "        old = self.network.heads.places[0][0]\n"
        "        self.network.heads.places[0][0] = nn.Conv2d(old.in_channels, old.out_channels + 1, 1)",
        ["before_step at step 1", "old head parameter places.0.0.weight", "(3, ", "changed its size to (4, "],
    ),
    "an old head that changed its size in after_step": (
        "def after_step(self, experience):\n"
        "    old = self.network.heads.places[0][0]\n"
        "    self.network.heads.places[0][0] = nn.Conv2d(old.in_channels, old.out_channels + 1, 1)",
        ["after_step at step 0", "old head parameter places.0.0.weight", "changed its size"],
    ),
    "an old head that is gone": (
        "def after_step(self, experience):\n    self.network.heads.places[0][0] = nn.Identity()",
        ["after_step at step 0", "places.0.0.weight", "is gone"],
    ),
    "a head of the wrong size": (
        "def build_head(self, channels, outputs):\n    return nn.Conv2d(channels, outputs + 1, 1)",
        ["build_head(", "it must give 3 outputs: (2, 3, 4, 4)", "(2, 4, 4, 4)"],
    ),
    "a head that is no module": (
        "def build_head(self, channels, outputs):\n    return None",
        ["build_head returned a NoneType", "torch.nn.Module"],
    ),
    "a first step that is not plain": (
        'first_step = "shared"\ndef pixel_loss(self, logits, batch):\n    return 2 * super().pixel_loss(logits, batch)',
        ['Mine says first_step = "shared"', "not plain cross-entropy"],
    ),
    "a first step of a kind that does not exist": ('first_step = "common"', ["first_step", "'common'", '"shared"']),
    "a hook with too few arguments": (
        "def regulariser(self, output, batch):\n    return output.logits.mean()",
        ["Mine.regulariser(self, output, batch)", "regulariser(self, output, batch, teacher_output)"],
    ),
    "a hook with a further argument": (
        "def predict(self, output, threshold):\n    return output.logits.argmax(1)",
        ["Mine.predict(self, output, threshold)", "predict(self, output)"],
    ),
    "a hook whose name is misspelt": (
        "def regularizer(self, output, batch, teacher_output):\n    return output.logits.mean()",
        ["Mine.regularizer is no hook", "did you mean regulariser?"],
    ),
    "an error in a hook": (
        "def pixel_loss(self, logits, batch):\n    return logits.mean() + self.nothing",
        ["step 0: in mine.py:11, AttributeError", "nothing"],
    ),
    "an error in a later step": (
        "def before_step(self, experience):\n    if self.step == 2:\n        [][1]",
        ["step 2: in mine.py:12, IndexError"],
    ),
    "an error in predict": (
        "def predict(self, output):\n    return output.nothing",
        ["evaluation of step 0: in mine.py:11, AttributeError"],
    ),
    "a setting that a hook cannot have": (
        "def build_head(self, channels, outputs):\n    return nn.Sequential(nn.Conv2d(channels, outputs, 1))\n"
        "def before_step(self, experience):\n    self.network.heads.init_from_background()",
        ["step 1: in mine.py:13, init_from_background needs heads"],
    ),
    "a state that cannot be saved": (
        "def state_dict(self):\n    return {'memory': [object()]}",
        ["Mine.state_dict holds a object", "can be saved"],
    ),
    "a state that is no dictionary": ("def state_dict(self):\n    return 3", ["Mine.state_dict returned a int"]),
    "a state that cannot be loaded": (
        "def load_state_dict(self, state):\n    return state['absent']",
        ["Mine.load_state_dict: in mine.py:11, KeyError"],
    ),
    "nothing to train": ("def param_groups(self):\n    return []", ["ValueError"]),
    "parameters that are no groups": (
        "def param_groups(self):\n    return list(self.network.parameters())",
        ["param_groups must return a list of dictionaries with 'params'"],
    ),
    "parameters that are not those of the network": (
        "def param_groups(self):\n    return [{'params': [nn.Parameter(torch.zeros(1))]}]",
        ["step 0: no parameter changed in training"],
    ),
    "a batch that is none": (
        "def prepare_batch(self, batch, teacher_output):\n    return batch.target",
        ["prepare_batch returned a tensor"],
    ),
    "targets changed in place": (
        "def prepare_batch(self, batch, teacher_output):\n    batch.target[:] = 0\n    return batch",
        ["prepare_batch changed batch.target in place"],
    ),
    "a value set before a step that is not kept": (
        "def before_step(self, experience):\n    self.share = 0.5\n"
        "def regulariser(self, output, batch, teacher_output):\n"
        "    return self.share * distillation(output.logits, teacher_output.logits)",
        ["going on after a stop in step 1: in mine.py:", "Mine.share was lost", "state_dict"],
    ),
    "a count that is not kept": (
        "count = property(lambda self: vars(self).get('_count', 0))\n"
        "def after_iteration(self):\n    self._count = self.count + 1\n"
        "def regulariser(self, output, batch, teacher_output):\n    return 0.01 * self.count * output.logits.mean()",
        ["going on after a stop in step 1 ends with other weights", "Mine._count was lost"],
    ),
    "no task": ("kinds = frozenset()", ["Mine.kinds is empty"]),
}

PLUGIN_FAULTS = {
    "an error when it is made": (
        "def __init__(self, **values):\n    super().__init__(**values)\n    raise ValueError('no')",
        ["making it: in mine.py:12, ValueError: no"],
    ),
    "a loss that is not finite": (
        "def loss(self, strategy, output, batch, teacher_output):\n    return output.logits.mean() * math.inf",
        ["Mine.loss is ", "inf"],
    ),
    "a loss of a wrong shape": (
        "def loss(self, strategy, output, batch, teacher_output):\n    return output.logits",
        ["Mine.loss returned a tensor of shape"],
    ),
    "a hook with wrong arguments": (
        "def after_step(self, experience):\n    pass",
        ["after_step(self, strategy, experience)"],
    ),
    "a first step that is not plain": (
        'first_step = "shared"\n'
        "def loss(self, strategy, output, batch, teacher_output):\n    return output.logits.square().mean()",
        ['Mine says first_step = "shared"'],
    ),
    "a memory that is not kept": (
        "def after_step(self, strategy, experience):\n    self.sizes = [len(experience.images.indices)]\n"
        "def loss(self, strategy, output, batch, teacher_output):\n"
        "    return output.logits.mean() / self.sizes[-1] if strategy.step else None",
        ["going on after a stop in step 1: in mine.py:", "Mine.sizes was lost"],
    ),
    "a state that cannot be saved": (
        "def state_dict(self):\n    return {'f': len}",
        ["Mine.state_dict holds a builtin_function_or_method"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_strategy_is_one_finding(method, fault):
    body, words = FAULTS[fault]
    assert_one(check_method(method(body)), words)


@pytest.mark.parametrize("fault", PLUGIN_FAULTS)
def test_a_fault_of_a_plugin_is_one_finding(method, fault):
    body, words = PLUGIN_FAULTS[fault]
    assert_one(check_method(method(body, "Plugin")), words)


def assert_one(findings, words):
    assert len(findings) == 1
    assert all(word in findings[0] for word in words), findings[0]
    assert "\n" not in findings[0]


SOUND = {
    "nothing of its own": "pass",
    "all hooks": """
first_step = "shared"
weight: float = 2.0
SIZES = (1, 2)  # a constant, no hyper-parameter

def before_step(self, experience):
    self.seen = len(experience.images.indices)

def prepare_batch(self, batch, teacher_output):
    return batch._replace(target=batch.target.clone())

def regulariser(self, output, batch, teacher_output):
    return self.weight * self.regular(distillation(output.logits, teacher_output.logits))

def regular(self, value):
    return value

def state_dict(self):
    return {"seen": self.seen, "sum": torch.zeros(3)}

def load_state_dict(self, state):
    self.seen = state["seen"]
""",
    "further arguments that have defaults": (
        "def predict(self, output, threshold=0.5):\n    return output.logits.argmax(1)"
    ),
    "losses called by keyword": (
        "def task_loss(self, output, batch, teacher_output):\n"
        "    return self.pixel_loss(logits=output.logits, batch=batch)"
    ),
    "a head of its own": (
        "def build_head(self, channels, outputs):\n    return nn.Conv2d(channels, outputs, 3, padding=1)"
    ),
}


@pytest.mark.parametrize("kind", SOUND)
def test_nothing_is_found_in_a_sound_method(method, kind):
    assert check_method(method(SOUND[kind])) == []


def test_nothing_is_found_in_a_sound_plugin(method):
    body = "weight: float = 0.1\ndef loss(self, strategy, output, batch, teacher_output):\n"
    body += "    return self.weight * output.logits.square().mean() if strategy.step else None"
    assert check_method(method(body, "Plugin")) == []


def test_the_command_shows_findings_and_fails(method, capsys):
    assert main(["check", method("weight = 2.0\nother = 'x'")]) == 2
    shown = capsys.readouterr()
    assert shown.out.count("✗ Mine.") == 2
    assert shown.err.startswith("2 faults in ")


def test_the_command_says_that_a_method_works(method, capsys):
    assert main(["check", method("pass")]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("✓ ")
    assert shown.err == ""


def test_a_value_in_the_text_that_does_not_fit_is_no_fault_of_the_method(method):
    with pytest.raises(DenseCLError, match="cannot be 'much'"):
        check_method(method("weight: float = 2.0") + "(weight=much)")
