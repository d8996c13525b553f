"""LoRA on attention: against the weights it stands for, merged when a step ends; the name it has beside a strategy."""

import copy

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from densecl.about.describe import bibtex, show_name
from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.models.network import Backbone, Features, Network
from densecl.runner.methods import parse_method
from densecl.strategies.attention_lora import AttentionLoRA
from densecl.strategies.lora import LoRA

pytestmark = pytest.mark.usefixtures("one_thread")


class Tokens(Backbone):
    """A transformer of one block on patches of 4 pixels."""

    channels = 8

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.patches, self.encoder.block = nn.Conv2d(3, 8, 4, 4), Block(8, 2)
        self.decoder = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, image):
        """Features of an image batch."""
        x = self.encoder.patches(image)
        x = self.encoder.block(x.flatten(2).mT).mT.reshape(x.shape)
        return Features(self.decoder(x), (x,))


def made(text="finetune+lora(rank=2)"):
    torch.manual_seed(0)
    return tiny_loop(parse_method(text), tiny_scenario(), Network(Tokens()))


def test_attention_is_found_by_its_modules():
    layers = {id(layer) for layer in Tokens().attention}
    backbone = Tokens()
    assert [n for n, m in backbone.named_modules() if m in backbone.attention] == [
        "encoder.block.attn.qkv",
        "encoder.block.attn.proj",
    ]
    assert len(layers) == 2
    assert tiny_network("unet", width=4, depth=2).backbone.attention == []


def test_an_encoder_without_attention_and_a_plugin_before_it_are_refused():
    with pytest.raises(SettingError, match="no attention"):
        tiny_loop(parse_method("finetune+lora"), tiny_scenario(), tiny_network())
    with pytest.raises(SettingError, match="lora must come before replay"):
        made("finetune+replay(memory=4)+lora")
    made("finetune+lora+replay(memory=4)")


def test_factors_are_what_the_weights_become_when_a_step_ends():
    loop = made()
    first, second, _ = loop.scenario.experiences
    loop.train([first])
    plain = dict(loop.network.state_dict())
    loop.begin(second)
    encoder = loop.network.backbone.encoder
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {f"block.attn.{layer}.lora_{part}" for layer in ("qkv", "proj") for part in ("down", "up")}
    image = torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    output = loop.network.eval()(image).decoded
    assert loop.teacher is not None
    assert output.equal(loop.teacher(image).decoded)  # `up` starts at zero
    while loop.epoch < loop.epochs:
        loop.begin_epoch()
        for batch in loop.loader:
            loop.update(batch)
        loop.end_epoch()
    fixed = {name: value for name, value in encoder.state_dict().items() if "lora" not in name}
    assert all(value.equal(before[name]) for name, value in fixed.items())
    factors = {
        layer: (layer.lora_down.detach().double(), layer.lora_up.detach().double())
        for layer in loop.network.backbone.attention
    }
    weights = {layer: layer.weight.detach().double() for layer in factors}
    adapted = loop.network.eval()(image).logits
    loop.finish(second)
    for layer, (down, up) in factors.items():
        assert up.any()
        torch.testing.assert_close(layer.weight.double(), weights[layer] + 8 / 2 * up @ down, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loop.network.eval()(image).logits, adapted, rtol=1e-4, atol=1e-5)
    now = loop.network.state_dict()
    assert {name for name in now if not name.startswith("heads")} == {n for n in plain if not n.startswith("heads")}
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_a_step_goes_on_with_the_factors_it_had():
    whole, stopped, again = made(), made(), made()
    first, second, _ = whole.scenario.experiences
    whole.train([first, second])
    stopped.train([first])
    weights, method = copy.deepcopy(stopped.network.state_dict()), stopped.method_state()
    states = []
    stopped.after_epoch = lambda: states.append(copy.deepcopy(stopped.state()))
    stopped.train([second])
    again.enter(first)
    again.network.load_state_dict(weights)
    again.load_method_state(method)
    again.resume(states[0])
    again.train([again.scenario.experiences[1]])
    for name, value in whole.network.state_dict().items():
        assert again.network.state_dict()[name].equal(value)


def test_a_name_is_a_strategy_as_the_first_word_and_a_plugin_as_a_later_one():
    assert parse_method("lora(rank=4)").strategy.cls is LoRA
    method = parse_method("mib+lora(rank=4)")
    assert [part.cls for part in method.plugins] == [AttentionLoRA]
    assert method.name == "mib+lora"
    assert method.plugins[0].resolved()["rank"] == 4
    shown = show_name("lora")
    assert "lora (strategy)" in shown
    assert "lora (plugin)" in shown
    assert bibtex("mib+lora").count("@inproceedings") == 2
