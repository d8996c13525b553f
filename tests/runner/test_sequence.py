"""Sequences of tasks: streams, settings, what is refused, training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from densecl.check.tiny import TRAINING, TinyImages, tiny_loop, tiny_network, tiny_sequence
from densecl.data.styles import style_image
from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.losses import distillation
from densecl.models.patchgan import initialised
from densecl.runner import plan as planning
from densecl.runner.build import _transforms
from densecl.runner.methods import check_fits, parse_method
from densecl.runner.plan import make_plan, tasks_by_content
from densecl.settings.recipe import EvaluationSettings, RunSettings, StreamSettings, TrainingSettings, build
from densecl.streams.scenario import TaskSource, task_sequence
from densecl.tasks import Segmentation
from densecl.tasks.autoencoding import Autoencoding
from densecl.tasks.colorization import Colorization

COLOURS = {"name": "colours", "kind": "colorization", "data": "tints"}
FIGURES = {"name": "figures", "kind": "segmentation", "data": "figures"}
SWIRLS = {"name": "swirls", "kind": "style_transfer", "data": "tints", "style": "swirls", "loss_network": "random"}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


def source(task, n=10, seed=1):
    return TaskSource(task, TinyImages(n, seed), TinyImages(4, seed + 1))  # type: ignore[arg-type]


# ---- the stream


def test_each_step_has_its_own_task_images_and_outputs():
    scenario = tiny_sequence()
    assert scenario.stream.kind == "tasks"
    assert [task.name for task in scenario.stream.tasks] == ["squares", "colours", "again"]
    assert [experience.n_outputs for experience in scenario.experiences] == [5, 2, 5]
    assert [len(e.images.indices) for e in scenario.experiences] == [24, 20, 18]
    assert len({tests.reader.ids for tests in scenario.tests}) == 3
    assert scenario.stream.names[0] == ("background", "red", "green", "blue", "yellow")
    assert scenario.stream.names[1] == ()


def test_a_sample_of_the_experience_is_what_the_task_makes_of_it():
    scenario = tiny_sequence()
    image, target = scenario.experiences[1].dataset[3][:2]
    raw = scenario.training.readers[1].read(3)[0]
    wanted = scenario.stream.tasks[1].prepare(raw[None], raw[None, 0])
    assert torch.equal(target, wanted.target[0])
    mean, std = scenario.normalisation
    torch.testing.assert_close(image, (wanted.image[0] / 255 - mean) / std)


def test_held_out_images_are_evaluated_and_not_trained_on():
    scenario = task_sequence([source(Colorization("a")), source(Colorization("b"), 20, 3)], validation=0.2)
    for experience, tests in zip(scenario.experiences, scenario.tests, strict=True):
        assert not set(experience.images.indices) & set(tests.indices)
    assert [len(tests) for tests in scenario.tests] == [2, 4]


def test_parts_of_the_training_images_are_consecutive_and_disjoint():
    """As in HAD: tasks on one data set share no training image, and held-out ones are no task's."""
    sources = [replace(source(Colorization(name), 11), part=(k, 3)) for k, name in enumerate("abc", 1)]
    scenario = task_sequence(sources)
    assert [e.images.indices.tolist() for e in scenario.experiences] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    held = task_sequence(sources, validation=0.2)
    parts = [set(e.images.indices.tolist()) for e in held.experiences]
    (tests,) = {tuple(tests.indices.tolist()) for tests in held.tests}
    assert sorted(set.union(*parts) | set(tests)) == list(range(11))
    assert sum(map(len, parts)) + len(tests) == 11
    with pytest.raises(SettingError, match="'a' has no training image"):
        task_sequence([replace(source(Colorization("a"), 2), part=(3, 3))])


def test_images_may_be_evaluated_at_a_height_and_a_width():
    (task,) = build(StreamSettings, {"kind": "tasks", "tasks": [{**COLOURS, "size": [20, 30]}]}, "stream").tasks
    assert task.size == (20, 30)
    evaluation = build(EvaluationSettings, {"size": [20, 30]}, "evaluation")
    transforms = _transforms(TRAINING, "full", evaluation.size)
    image, mask = torch.zeros(3, 40, 60, dtype=torch.uint8), torch.zeros(40, 60, dtype=torch.uint8)
    assert transforms.evaluate(image, mask, np.random.default_rng(0))[0].shape == (3, 20, 30)


def test_a_part_of_the_images_is_a_setting_that_older_runs_lack():
    content = {"kind": "tasks", "tasks": [COLOURS]}
    assert "images" not in build(StreamSettings, content, "stream").model_dump()["tasks"][0]
    (task,) = build(StreamSettings, {"kind": "tasks", "tasks": [{**COLOURS, "images": [2, 3]}]}, "stream").tasks
    assert task.images == (2, 3)
    assert task.model_dump(mode="json")["images"] == [2, 3]
    with pytest.raises(SettingError, match=r"images \[4, 3\] is no part"):
        build(StreamSettings, {"kind": "tasks", "tasks": [{**COLOURS, "images": [4, 3]}]}, "stream")


def test_the_fingerprint_follows_tasks_and_images():
    prints = {
        task_sequence(parts).fingerprint
        for parts in (
            [source(Colorization("a"))],
            [source(Colorization("b"))],
            [source(Colorization("a", scale=10))],
            [source(Colorization("a"), seed=5)],
        )
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "no task"),
        ([Colorization("a"), Colorization("a")], "two tasks are named 'a'"),
        ([Colorization("a.b")], "cannot name a task"),
        ([Segmentation("a")], "how many outputs"),
        ([Segmentation("a", classes=3)], "4 outputs"),
    ],
)
def test_sequences_that_cannot_be_are_refused(tasks, message):
    with pytest.raises(SettingError, match=message):
        task_sequence([source(task) for task in tasks])


# ---- settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour"),
        ({"style": "swirls"}, "'style' is of style_transfer"),
        ({"kind": "style_transfer"}, "needs a style"),
        ({"kind": "paint"}, "kind"),
        ({"scale": 0}, "scale"),
    ],
)
def test_a_task_with_a_wrong_key_is_refused_by_name(change, message):
    with pytest.raises(SettingError, match=message) as error:
        build(StreamSettings, {"kind": "tasks", "tasks": [{**COLOURS, **change}]}, "stream")
    assert "stream.tasks" in str(error.value)


def test_recorded_settings_of_a_sequence_can_be_read_again():
    stream = build(StreamSettings, {"kind": "tasks", "tasks": [FIGURES, COLOURS, SWIRLS]}, "stream")
    content = stream.model_dump(mode="json")
    assert "setting" not in content
    assert "scale" in content["tasks"][1]
    assert "scale" not in content["tasks"][0]
    assert build(StreamSettings, json.loads(json.dumps(content)), "stream") == stream


def test_none_typed_for_the_loss_networks_weights_is_a_random_network():
    """The grammar reads `none` as nothing, and nothing would be the default: a download."""
    plan = make_plan("shapes-5tasks", "finetune", assignments=["stream.loss_weights=none"])
    assert plan.settings.stream.loss_weights == "none"
    assert make_plan("shapes-5tasks", "finetune").settings.stream.loss_weights == "torchvision"


def test_weights_of_a_loss_network_are_recorded_where_one_is_used():
    vgg = {**SWIRLS, "loss_network": "vgg16"}
    for tasks, recorded in (([FIGURES], False), ([FIGURES, SWIRLS], False), ([FIGURES, vgg], True)):
        stream = build(StreamSettings, {"kind": "tasks", "tasks": tasks}, "stream")
        assert ("loss_weights" in stream.model_dump()) is recorded


def test_streams_of_classes_are_recorded_as_before():
    assert set(StreamSettings().model_dump()) == {"split", "kind", "setting", "labels", "order"}


def test_lengths_of_later_steps_may_be_a_list_whose_last_goes_on():
    settings = build(TrainingSettings, {"iterations": 9, "later": {"iterations": [5, 3]}}, "training")
    assert [settings.length(step) for step in range(4)] == [(None, 9), (None, 5), (None, 3), (None, 3)]
    epochs = build(TrainingSettings, {"epochs": 9, "later": {"epochs": [5, 3]}}, "training")
    assert [epochs.length(step)[0] for step in range(4)] == [9, 5, 3, 3]
    with pytest.raises(SettingError):
        build(TrainingSettings, {"later": {"iterations": []}}, "training")


# ---- what is refused before data is read


@pytest.fixture
def no_data(monkeypatch):
    def never(*_arguments, **_more):
        raise AssertionError("data was read")

    monkeypatch.setattr(planning, "open_dataset", never)


@pytest.mark.parametrize("method", ["mib", "ilt", "joint"])
def test_methods_of_classes_are_refused_on_colorization(method, no_data):
    with pytest.raises(SettingError, match=f"{method} cannot learn colorization \\('colours'\\)"):
        make_plan("shapes-3tasks", method)


def test_methods_of_classes_are_refused_on_a_sequence_of_segmentations(no_data):
    plan = make_plan("shapes-3tasks", "finetune")
    stream = plan.settings.stream.model_copy(update={"tasks": plan.settings.stream.tasks[:1]})
    settings = plan.settings.model_copy(update={"stream": stream})
    with pytest.raises(SettingError, match="classes that arrive over time"):
        check_fits(parse_method("mib"), settings)


def test_methods_of_tasks_are_told_the_step_on_classes(no_data):
    assert make_plan("shapes15-5", "packnet").method.told


def test_plugins_of_classes_are_refused_on_tasks(no_data):
    with pytest.raises(SettingError, match="deepinversion learns classes"):
        make_plan("shapes-3tasks", "finetune+deepinversion")


def test_a_method_brings_the_backbone_it_needs_unless_one_is_named(no_data):
    assert make_plan("shapes-3tasks", "resblock").settings.backbone == "resblock"
    assert make_plan("shapes-3tasks", "resblock", backbone="unet").settings.backbone == "unet"
    assert make_plan("shapes-3tasks", "piggyback").settings.backbone == "unet"


def test_the_recorded_backbone_has_as_many_blocks_as_the_method_gives_it(no_data):
    for text, blocks in (("resblock", 6), ("resblock(blocks=9)", 9)):
        settings = make_plan("shapes-3tasks", text, backbone="resblock(width=4, blocks=2)").settings
        assert settings.backbone_values["blocks"] == settings.strategy_values["blocks"] == blocks


@pytest.mark.parametrize(("values", "decay"), [("", TRAINING.weight_decay), ("(head_decay=0)", 0.0)])
def test_weight_decay_of_piggybacks_head_is_that_of_training_or_its_own(values, decay):
    loop = tiny_loop(parse_method(f"piggyback{values}"), tiny_sequence(), tiny_network("unet", width=4, depth=2))
    first, second, _ = loop.scenario.experiences
    loop.train([first])
    loop.begin(second)
    assert [group["weight_decay"] for group in loop.optimizer.param_groups] == [0.0, decay]


def test_resblock_refuses_another_backbone_and_decoder_one_without():
    with pytest.raises(SettingError, match="resblock cannot use UNet"):
        tiny_loop(parse_method("resblock"), tiny_sequence(), tiny_network("unet", width=4, depth=2))
    network = tiny_network("fcn", encoder="mini", weights="none", encoder_widths=(8, 8, 12, 16))
    with pytest.raises(SettingError, match="FCN has no decoder"):
        tiny_loop(parse_method("decoder"), tiny_sequence(), network)


# ---- style images


def style_settings(style, root):
    stream = {"kind": "tasks", "tasks": ({**SWIRLS, "style": style},)}
    return RunSettings(
        benchmark="b", strategy="s", backbone="unet", stream=build(StreamSettings, stream), data={"root": root}
    )


def test_a_style_image_counts_by_its_content(tmp_path):
    Image.fromarray(style_image("waves")).save(tmp_path / "one.png")
    Image.fromarray(style_image("waves")).save(tmp_path / "two.png")
    Image.fromarray(style_image("swirls")).save(tmp_path / "three.png")
    one, two, three = (
        tasks_by_content(style_settings(str(tmp_path / f"{name}.png"), None)) for name in ("one", "two", "three")
    )
    assert one == two != three


def test_a_style_image_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        tasks_by_content(style_settings(str(tmp_path / "gone.png"), None))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        tasks_by_content(style_settings(str(tmp_path / "broken.png"), None))


# ---- training


def test_what_a_teacher_teaches_is_the_tasks_own_matter():
    one, other = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    assert torch.equal(Segmentation("a", classes=4).distillation(one, other), distillation(one, other))
    difference = (one - other).numpy().astype(np.float64)
    torch.testing.assert_close(
        Colorization("a").distillation(one, other).item(), (difference**2).mean(), rtol=1e-6, atol=0
    )


def adversarial():
    tasks = [
        source(Autoencoding("copy", loss="adversarial", critic=initialised(3, width=4))),
        source(Colorization("b")),
    ]
    return tiny_loop(parse_method("finetune"), task_sequence(tasks), tiny_network("unet", width=4, depth=2))


def test_a_critic_learns_and_goes_on_after_a_kill():
    whole = adversarial()
    first = whole.scenario.experiences[0]
    before = [p.clone() for p in whole.task.critic.parameters()]
    states = []
    whole.after_epoch = lambda: states.append(json_free(whole.state()))
    whole.train([first])
    assert any(not torch.equal(a, b) for a, b in zip(before, whole.task.critic.parameters(), strict=True))
    resumed = adversarial()
    resumed.resume(states[0])
    resumed.train([resumed.scenario.experiences[0]])
    mine, other = whole.task.state_dict()["network"], resumed.task.state_dict()["network"]
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    weights = resumed.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in whole.network.state_dict().items())


def json_free(state):
    """A copy: training goes on changing the tensors."""
    if isinstance(state, dict):
        return {key: json_free(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(json_free, state))
    return state.detach().clone() if isinstance(state, torch.Tensor) else state


def test_a_task_that_was_never_learnt_is_named():
    loop = tiny_loop(parse_method("piggyback"), tiny_sequence(), tiny_network("unet", width=4, depth=2))
    loop.train([loop.scenario.experiences[0]])
    with pytest.raises(UnknownNameError, match="colours"):
        loop.strategy.select_task(1)
