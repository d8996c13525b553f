"""Half precision in evaluation, and memory of a run on a CPU."""

import platform
import subprocess
import sys

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_scenario
from densecl.errors import SettingError
from densecl.runner.evaluation import see
from densecl.runner.methods import parse_method
from densecl.settings.recipe import TrainingSettings, build

CODE = """
import resource, sys, torch
from densecl.training.precision import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.ones(1)  # pages of what is called for the first time are not counted
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(64, 2**18)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is that of another library")
def test_freed_memory_is_used_again_instead_of_asked_for_page_by_page():
    asked, kept = (int(subprocess.check_output([sys.executable, "-c", CODE, how])) for how in ("asked", "kept"))
    assert kept < asked / 5


@pytest.mark.parametrize("method", ["ssul", "barm", "dkd", "star", "mib"])
def test_classes_that_half_precision_cannot_tell_apart_after_a_sigmoid_are_still_told_apart(method):
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update={"precision": "bf16", "iterations": 1})
    loop = tiny_loop(parse_method(method), scenario, training=training)
    loop.train(scenario.experiences[:1])
    with torch.no_grad():  # all probabilities near 1, the last class the largest by far
        for head in loop.network.heads.places[0]:
            last = head if isinstance(head, torch.nn.Conv2d) else head[-1]
            last.weight.zero_()
            n = len(last.bias)
            last.bias.copy_(torch.tensor([-9.0] * (n - 2) + [7.0, 9.0] if n > 1 else [-9.0]))
    image = scenario.tests[0][0].image[None]
    output, _ = see(loop, loop.stream.tasks[0], image, torch.zeros(1, *image.shape[2:], dtype=torch.uint8))
    assert output.logits.dtype == torch.float32
    assert loop.strategy.predict(output).unique().tolist() == [2]


@pytest.mark.parametrize(
    ("method", "changes"), [("sdr", {"freeze": "encoder"}), ("rcil", {"later": {"freeze": "encoder"}})]
)
def test_methods_that_need_the_encoder_to_move_refuse_a_frozen_one(method, changes):
    training = build(TrainingSettings, {**TRAINING.model_dump(), **changes}, "training")
    with pytest.raises(SettingError, match="freeze=encoder"):
        tiny_loop(parse_method(method), tiny_scenario(), training=training)
