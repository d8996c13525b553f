"""The order in which the loop calls a method, its plugins and stock plugins: fresh, in parts, resumed, loaded."""

import multiprocessing
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.runner import evaluation
from densecl.runner.methods import parse_method
from densecl.seeding import derive, seed_torch
from densecl.settings.recipe import EvaluationSettings, LaterSettings, RunSettings
from densecl.strategies.base import Plugin, Strategy
from densecl.training.batch import Batch
from densecl.training.loop import Loop

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS, BATCHES = 2, (2, 1)  # batches of an epoch at each step
SETTINGS = TRAINING.model_copy(update={"epochs": EPOCHS, "batch": 6, "later": LaterSettings(lr=1e-3)})
STRATEGY = (
    "configure build before_step param_groups train_mode prepare_batch task_loss regulariser after_iteration after_step"
)
PLUGIN = "before_step before_epoch loss after_step"


def recorded(cls, name, hook, calls):
    """A hook that says its name, then does what the base does."""
    function = getattr(cls, hook)

    def method(self, *arguments):
        calls.append(f"{name}{hook}")
        return function(self, *arguments)

    return method


def made(settings=SETTINGS, plugins=(), stock=(), **options):
    """A loop whose strategy and plugin write down what is called, and the list that they write into."""
    calls = []
    strategy = type("Recording", (Strategy,), {h: recorded(Strategy, "", h, calls) for h in STRATEGY.split()})
    plugin = type(
        "Told", (Plugin,), {h: recorded(Plugin, "plugin ", h, calls) for h in PLUGIN.split()} | {"name": "told"}
    )
    scenario = options.pop("scenario", None) or tiny_scenario()
    loop = Loop(
        strategy(),
        tiny_network(),
        scenario.stream,
        scenario.normalisation,
        settings,
        scenario=scenario,
        plugins=[plugin(), *plugins, *stock],
        **options,
    )
    return loop, calls


def iterations(parts=1, step=0):
    """The calls of one iteration."""
    learn = ["prepare_batch", "task_loss", *(["regulariser"] if step else []), "plugin loss"]
    return [*(learn * parts), "after_iteration"]


def whole_step(step):
    """The calls of a fresh step."""
    epoch = ["train_mode", "plugin before_epoch", *(iterations(step=step) * BATCHES[step])]
    return [
        "build",
        "before_step",
        "plugin before_step",
        "param_groups",
        *(epoch * EPOCHS),
        "after_step",
        "plugin after_step",
    ]


def test_a_fresh_run_prepares_trains_and_concludes_each_step_in_this_order():
    loop, calls = made()
    loop.train(loop.scenario.experiences[:2])
    assert calls == ["configure", *whole_step(0), *whole_step(1)]
    assert (loop.step, loop.epoch, loop.iterations, loop.planned) == (1, EPOCHS, loop.planned, loop.planned)


class InParts(Strategy):
    """Counts what a batch in parts calls; a method that changes targets is refused with them."""

    calls: ClassVar[list[tuple[str, int]]] = []

    def task_loss(self, output, batch, teacher_output):
        self.calls.append(("task_loss", len(batch.image)))
        return super().task_loss(output, batch, teacher_output)

    def after_iteration(self):
        self.calls.append(("after_iteration", self.iterations))


def test_a_batch_in_parts_calls_the_losses_once_a_part_and_the_optimiser_once():
    scenario = tiny_scenario()
    settings = SETTINGS.model_copy(update={"epochs": 1, "accumulation": 3})
    InParts.calls.clear()
    loop = Loop(InParts(), tiny_network(), scenario.stream, scenario.normalisation, settings, scenario=scenario)
    loop.train(scenario.experiences[:1])
    counted = [number for name, number in InParts.calls if name == "after_iteration"]
    assert counted == [*range(1, BATCHES[0] + 1)]
    assert InParts.calls[:4] == [*[("task_loss", 2)] * 3, ("after_iteration", 1)]


@pytest.mark.parametrize(("step", "epoch"), [(0, 1), (1, 1), (1, 2)])
def test_a_resumed_step_is_not_prepared_again_and_goes_on_with_the_next_epoch(step, epoch):
    loop, _ = made()
    states = {}
    loop.after_epoch = lambda: states.setdefault((loop.step, loop.epoch), loop.state())
    for experience in loop.scenario.experiences[: step + 1]:
        before = {name: value.clone() for name, value in loop.network.state_dict().items()}
        method = loop.method_state()
        loop.train([experience])
    again, calls = made()
    for entered in again.stream.steps[:step]:
        again.enter(entered)
    if step:
        again.network.load_state_dict(before)
        again.load_method_state(method)
    again.resume(states[step, epoch])
    assert again.resuming
    again.train([again.scenario.experiences[step]])
    rest = ["train_mode", "plugin before_epoch", *(iterations(step=step) * BATCHES[step])] * (EPOCHS - epoch)
    replayed = ["build"] * step
    assert calls == ["configure", *replayed, "build", "param_groups", *rest, "after_step", "plugin after_step"]


def test_a_first_step_that_is_loaded_is_built_and_concluded_only():
    loop, calls = made()
    first = loop.scenario.experiences[0]
    loop.enter(first)
    loop.finish(first)
    assert calls == ["configure", "build", "after_step", "plugin after_step"]


def test_a_step_of_length_0_is_prepared_and_concluded_without_an_iteration():
    loop, calls = made()
    loop.strategy.length_factor = lambda step: float(step == 0)
    loop.train(loop.scenario.experiences[:2])
    second = calls[calls.index("plugin after_step") + 1 :]
    assert second == ["build", "before_step", "plugin before_step", "param_groups", "after_step", "plugin after_step"]
    assert loop.planned == 0


def test_a_stock_plugin_hears_avalanches_callbacks_in_avalanches_order():
    from avalanche.training.plugins import SupervisedPlugin

    heard = []

    def hear(callback):
        return lambda self, strategy, **_: heard.append(callback)

    inner = ["before_forward", "after_forward", "before_backward", "after_backward", "before_update", "after_update"]
    outer = ["training_exp", "training_epoch", "training_iteration"]
    callbacks = [*inner, *(f"{when}_{what}" for what in outer for when in ("before", "after"))]
    stock = type("Stock", (SupervisedPlugin,), {callback: hear(callback) for callback in callbacks})
    loop, _ = made(stock=[stock()])
    loop.train(loop.scenario.experiences[:1])
    iteration = ["before_training_iteration", *inner, "after_training_iteration"]
    epoch = ["before_training_epoch", *(iteration * BATCHES[0]), "after_training_epoch"]
    assert heard == ["before_training_exp", *(epoch * EPOCHS), "after_training_exp"]


def test_batches_for_a_purpose_show_each_image_once_and_disturb_no_draw():
    """A measurement before a step leaves the training as it would be."""
    seen = []

    class Measuring(Strategy):
        def before_step(self, experience):
            for batch in self.batches("a purpose"):
                assert isinstance(batch, Batch)
                assert batch.image.dtype == torch.float32
                seen.extend(batch.index.tolist())

    weights = []
    for cls in (Strategy, Measuring):
        scenario = tiny_scenario()
        loop = Loop(cls(), tiny_network(), scenario.stream, scenario.normalisation, SETTINGS, scenario=scenario)
        loop.train(scenario.experiences[:1])
        weights.append(loop.network.state_dict())
    assert sorted(seen) == sorted(scenario.experiences[0].images.indices.tolist())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_batches_repeat_for_a_purpose_and_differ_for_another():
    scenario = tiny_scenario()
    loop = Loop(Strategy(), tiny_network(), scenario.stream, scenario.normalisation, SETTINGS, scenario=scenario)
    loop.begin(scenario.experiences[0])
    first, again, other = (
        torch.cat([batch.image for batch in loop.strategy.batches(purpose)]) for purpose in ("a", "a", "b")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_mean_over_all_pixels_counts_those_without_a_label_as_0(parts):
    settings = SETTINGS.model_copy(update={"mean_over": "all", "accumulation": parts})
    loop = tiny_loop(parse_method("finetune"), tiny_scenario(), training=settings)
    terms = []

    def sums(output, batch, _teacher_output):
        maps = (output.logits, *output.auxiliary)
        terms.append(sum(cross_entropy(m, batch.target, ignore_index=255, reduction="sum") for m in maps))
        return Strategy.task_loss(loop.strategy, output, batch, None)

    loop.strategy.task_loss = sums
    loop.begin(loop.scenario.experiences[0])
    loop.begin_epoch()
    loop.update(next(iter(loop.loader)))
    assert (loop.batch.target == 255).any()
    assert len(terms) == parts
    torch.testing.assert_close(loop.loss_terms["task"], sum(terms).detach() / loop.batch.target.numel())


def test_only_images_that_show_a_learnt_class_are_scored_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(evaluation, "class_index", lambda reader: reader.presence())
    loop, _ = made()
    masks = torch.from_numpy(loop.scenario.tests[0].reader.masks)
    labelled = (masks != 255).sum((1, 2))
    for experience, learnt in zip(loop.scenario.experiences[:2], ([1, 2], [1, 2, 3]), strict=True):
        loop.enter(experience)
        showing = torch.isin(masks, torch.tensor(learnt, dtype=torch.uint8)).any(2).any(1)
        for images, counted in (("all", labelled), ("seen", labelled[showing])):
            settings = EvaluationSettings(images=images)
            [scores] = evaluation.evaluate(loop, experience.step, 4, settings=settings)
            assert sum(map(sum, scores.confusion)) == int(counted.sum())
    assert int(showing.sum()) > 0


def test_settings_that_were_added_later_are_recorded_where_they_are_not_the_defaults():
    """So that runs from before keep their hash."""
    dumped = RunSettings(benchmark="b", strategy="s", backbone="b").model_dump()
    assert not {"drop_last", "mean_over"} & dumped["training"].keys()
    assert not {"images", "absent"} & dumped["evaluation"].keys()
    training = TRAINING.model_copy(update={"drop_last": True, "mean_over": "all"}).model_dump()
    assert (training["drop_last"], training["mean_over"]) == (True, "all")
    assert EvaluationSettings(images="seen", absent="skip").model_dump().keys() >= {"images", "absent"}


@pytest.mark.parametrize("gpu", [False, True])
def test_torch_is_seeded_as_by_its_own_function(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    torch.manual_seed(derive(3, "epoch", 1))
    wanted = torch.rand(4)
    seed_torch(3, "epoch", 1)
    assert torch.rand(4).equal(wanted)


def test_the_workers_of_a_step_end_with_it():
    method = parse_method("finetune")
    loop = tiny_loop(method, tiny_scenario(), tiny_network(), SETTINGS, workers=1)
    during = []
    loop.after_epoch = lambda: during.append(len(multiprocessing.active_children()))
    for experience in loop.scenario.experiences:
        loop.train([experience])
        assert multiprocessing.active_children() == []
    assert during == [1] * EPOCHS * 3
