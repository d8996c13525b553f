"""What a sequence of tasks costs to keep: by formula, by the tensors, by the file."""

import pytest
import torch
from safetensors.torch import save

from densecl.check.tiny import tiny_backbone, tiny_loop, tiny_network, tiny_sequence
from densecl.models import Network, UNet
from densecl.models.heads import TaskHeads
from densecl.runner.keep import stored
from densecl.runner.methods import parse_method
from densecl.strategies.storage import counts, formula_bytes, numbers
from size_formulas import MIB, rounded_total


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.mark.parametrize(
    "name",
    [
        *(
            "scratch",
            "decoder",
            "piggyback",
            "piggyback(masks=ternary)",
            "packnet",
            "resblock",
            "classifier",
            "finetune",
        ),
        *("norms", "adapter", "lora(rank=3)", "taps", "taps(from_epoch=0,weight=100,initial=0.101)", "wsn"),
    ],
)
def test_formula_tensors_and_file_agree(name):
    method = parse_method(name)
    network = tiny_backbone(method) if name == "resblock" else tiny_network("unet", width=4, depth=2, norm="batch")
    loop = tiny_loop(method, tiny_sequence(), network)
    for experience in loop.scenario.experiences:
        loop.train([experience])
        found = stored(loop)
        kept = loop.strategy.model_tensors()
        assert found.file == len(save({key: tensor.contiguous() for key, tensor in kept.items()}))
        # beside the formula: counters of BatchNorm, phases of PackNet, and packed bits that fill whole bytes
        small = sum(t.numel() * t.element_size() for t in kept.values() if t.dtype == torch.int64)
        packed = sum(t.dtype == torch.uint8 for t in kept.values())
        assert 0 <= found.tensors - found.formula - small <= 2 * packed


def test_the_full_u_net_has_the_sizes_of_the_papers():
    network = Network(UNet(norm="instance"))
    network.make_heads(TaskHeads)
    for name, outputs in (("coco", 81), ("voc", 21), ("colorization", 2), ("starry-night", 3), ("scream", 3)):
        network.task_heads.begin(name)
        network.grow(outputs)
    names = network.task_heads.names
    whole = counts(network)
    head = {name: sum(numbers(network.task_heads.of(name)).values()) for name in names}
    assert whole.backbone + head["coco"] == 14_786_193
    assert 4 * (whole.backbone + head["coco"]) / MIB == pytest.approx(56.405, abs=5e-4)
    assert 4 * (whole.decoder + head["coco"]) / MIB == pytest.approx(20.528, abs=5e-4)
    assert (whole.weights / 8 + 4 * head["voc"]) / MIB == pytest.approx(1.7666, abs=5e-5)
    exact = {n: formula_bytes(network, "piggyback", names[:n]) / MIB for n in (3, 5)}
    assert {n: round(size, 1) for n, size in exact.items()} == {3: 59.9, 5: 63.5}
    papers = {"scratch": (169.2, 282.0), "decoder": (97.4, 138.4), "piggyback": (60.0, 63.6)}
    for method, totals in papers.items():
        first = formula_bytes(network, method, names[:1]) / MIB
        further = formula_bytes(network, method, names[:2]) / MIB - first
        assert (rounded_total(first, further, 3), rounded_total(first, further, 5)) == totals
