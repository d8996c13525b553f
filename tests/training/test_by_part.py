"""Learning rates, weight decay, BatchNorm and dropout by part of the network."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.settings.recipe import TrainingSettings, build
from densecl.training.by_part import PARTS, set_modes

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(**changes):
    return build(TrainingSettings, {**TRAINING.model_dump(), **changes}, "training")


def made(training, step=1, method="finetune"):
    loop = tiny_loop(parse_method(method), tiny_scenario(), tiny_network(), training)
    experiences = loop.scenario.experiences
    for experience in experiences[:step]:
        loop.enter(experience)
        loop.network.train()
    loop.begin(experiences[step])
    loop.begin_epoch()
    return loop


def owners(loop):
    """Name of each parameter -> the group of the optimiser that holds it."""
    group_of = {id(p): group for group in loop.optimizer.param_groups for p in group["params"]}
    return {name: group_of.get(id(p)) for name, p in loop.network.named_parameters()}


def part(name, step=1):
    """By the layout of the tiny BiSeNet."""
    if name.startswith("heads."):
        return "old_heads" if int(name.split(".")[3]) < step else "new_heads"
    return "decoder" if name.split(".")[1] in ("context", "fusion") else "backbone"


def test_without_parts_settings_and_groups_are_those_of_before():
    for model in (TrainingSettings(), settings(), settings(parts={"decoder": {}}, later={"parts": {}})):
        content = model.model_dump(mode="json")
        assert "parts" not in content
        assert "parts" not in content["later"]
    loop = made(settings())
    [group] = loop.optimizer.param_groups
    assert len(group["params"]) == len(list(loop.network.parameters()))


def test_each_part_has_its_rate_and_decay_and_steps_after_the_first_their_own():
    given = {name: {"lr_scale": 2.0 + k, "weight_decay": 0.1 * k} for k, name in enumerate(PARTS)}
    training = settings(lr=0.01, later={"lr": 0.001, "parts": {"decoder": {"lr_scale": 7.0}}}, parts=given, warmup=0)
    for step, rate in ((0, 0.01), (1, 0.001)):
        loop = made(training, step)
        assert len(loop.optimizer.param_groups) == (3 if step == 0 else 4)  # no old head at step 0
        for name, group in owners(loop).items():
            own = part(name, step)
            scale = 7.0 if step and own == "decoder" else given[own]["lr_scale"]
            assert group["initial_lr"] == pytest.approx(rate * scale)
            assert group["weight_decay"] == given[own]["weight_decay"]


@pytest.mark.parametrize("mode", ["frozen", "fixed"])
def test_batchnorm_of_a_part_rests_and_its_scale_and_shift_where_they_are_fixed(mode):
    loop = made(settings(later={"lr": 0.01, "parts": {"backbone": {"batchnorm": mode}}}))
    before = {name: value.clone() for name, value in loop.network.state_dict().items()}
    for batch in loop.loader:
        loop.update(batch)
    norms = {name for name, module in loop.network.named_modules() if isinstance(module, _BatchNorm)}
    for name, value in loop.network.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if module in norms and leaf.startswith("running"):
            assert torch.equal(value, before[name]) is (part(name) == "backbone"), name
        elif module in norms and leaf in ("weight", "bias"):
            assert torch.equal(value, before[name]) is (part(name) == "backbone" and mode == "fixed"), name


def test_a_part_may_train_its_statistics_where_all_others_are_frozen():
    loop = made(settings(batchnorm="frozen", parts={"decoder": {"batchnorm": "train"}}))
    modes = {(part(f"{n}.x"), m.training) for n, m in loop.network.named_modules() if isinstance(m, _BatchNorm)}
    assert modes == {("backbone", False), ("decoder", True)}


def test_dropout_of_a_part_is_off_where_it_is_asked_for():
    for asked in (None, False):
        network = tiny_network()
        network.backbone.fusion.add_module("dropped", nn.Dropout(0.5))
        training = settings(later={"parts": {"decoder": {"dropout": asked}}})
        loop = tiny_loop(parse_method("finetune"), tiny_scenario(), network, training)
        loop.train(loop.scenario.experiences[:1])
        assert network.backbone.fusion.dropped.training
        loop.begin(loop.scenario.experiences[1])
        loop.begin_epoch()
        assert network.backbone.fusion.dropped.training is (asked is None)


def test_what_is_frozen_is_in_no_group():
    loop = made(settings(parts={"decoder": {"lr_scale": 2.0}}), method="frozen")
    assert {name for name, group in owners(loop).items() if group} == {
        name for name, _ in loop.network.named_parameters() if part(name) == "new_heads"
    }


def test_the_hash_of_a_run_knows_parts_alone_where_they_are_given(tmp_path):
    def planned(*assignments):
        return make_plan("shapes15-5", "finetune", assignments=assignments, output=tmp_path).settings.training

    assert planned() == planned("training.parts.decoder.lr_scale=none")
    changed = planned("training.later.parts.decoder.lr_scale=10").model_dump(mode="json")
    assert changed["later"]["parts"] == {"decoder": {"lr_scale": 10.0}}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.parts.head.lr_scale=2", r"training\.parts\.head"),
        ("training.parts.decoder.lr=2", r"training\.parts\.decoder\.lr"),
        ("training.later.parts.decoder.batchnorm=off", r"training\.later\.parts\.decoder\.batchnorm"),
    ],
)
def test_unknown_parts_and_values_are_named(assignment, words):
    with pytest.raises(SettingError, match=words):
        make_plan("shapes15-5", "finetune", assignments=[assignment])


def test_parts_are_refused_where_the_method_decides_what_a_task_trains():
    with pytest.raises(SettingError, match=r"training\.parts does not go with piggyback"):
        make_plan("shapes15-5", "piggyback", assignments=["training.parts.decoder.lr_scale=2"])


def test_without_dropout_no_branch_of_a_transformer_is_left_out_either():
    network = tiny_network("allmlp", encoder="mini_swin", width=8, **{"encoder.drop_path_rate": 0.5})
    set_modes(network.train(), settings(parts={"backbone": {"dropout": False}}), 0)
    kinds = {
        name: {m.training for m in network.modules() if type(m).__name__ == name} for name in ("DropPath", "Dropout2d")
    }
    assert kinds == {"DropPath": {False}, "Dropout2d": {True}}
