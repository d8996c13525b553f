"""Stock plugins of Avalanche: those that are let in have an effect, all others are refused when a run is planned."""

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_network, tiny_scenario
from densecl.errors import RunError, SettingError
from densecl.settings.recipe import LaterSettings
from densecl.strategies.base import Strategy
from densecl.streams.scenario import class_incremental
from densecl.training import stock
from densecl.training.loop import Loop

pytestmark = pytest.mark.usefixtures("one_thread")
plugins = pytest.importorskip("avalanche.training.plugins")

SETTINGS = TRAINING.model_copy(update={"epochs": 2, "lr": 1e-3, "later": LaterSettings(lr=1e-3)})
PENALTIES = {
    "EWCPlugin": {"ewc_lambda": 1e4},
    "MASPlugin": {"lambda_reg": 100.0},
    "SynapticIntelligencePlugin": {"si_lambda": 1e4},
}
PROJECTIONS = {
    "AGEMPlugin": {"patterns_per_experience": 8, "sample_size": 8},
    "GEMPlugin": {"patterns_per_experience": 8, "memory_strength": 0.5},
}


def made(*stock_plugins, scenario=None, settings=SETTINGS):
    """A loop before its first step."""
    torch.manual_seed(0)
    scenario = scenario or tiny_scenario()
    stream, normalisation = scenario.stream, scenario.normalisation
    return Loop(Strategy(), tiny_network(), stream, normalisation, settings, scenario=scenario, plugins=stock_plugins)


def trained(*stock_plugins, scenario=None):
    """A loop after two steps, and its weights after each."""
    loop, states = made(*stock_plugins, scenario=scenario), []
    for experience in loop.scenario.experiences[:2]:
        loop.train([experience])
        states.append({name: value.clone() for name, value in loop.network.state_dict().items()})
    return loop, states


def moved(states):
    """The squared distance that the backbone's weights went in step 1."""
    first, second = states
    return sum(
        float((second[name] - value).square().sum())
        for name, value in first.items()
        if value.is_floating_point() and name.startswith("backbone") and "running" not in name
    )


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_a_penalty_holds_weights_of_step_1_and_leaves_step_0_as_it_is(name):
    _, alone = trained()
    _, held = trained(getattr(plugins, name)(**PENALTIES[name]))
    weights = [key for key in alone[0] if "running" not in key and "num_batches" not in key]  # MAS moves statistics
    assert all(torch.equal(alone[0][key], held[0][key]) for key in weights)
    assert 0 < moved(held) < moved(alone)


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
def test_a_projection_of_gradients_changes_step_1_alone(name):
    _, alone = trained()
    _, projected = trained(getattr(plugins, name)(**PROJECTIONS[name]))
    assert all(torch.equal(alone[0][key], value) for key, value in projected[0].items())
    assert any(not torch.equal(alone[1][key], value) for key, value in projected[1].items())


def test_synaptic_intelligence_remembers_importance():
    """Avalanche 0.6 alone measures none on a CPU: it keeps views of the live weights."""
    plugin = plugins.SynapticIntelligencePlugin(si_lambda=1.0)
    trained(plugin)
    assert sum(float(part.data.abs().sum()) for part in plugin.ewc_data[1].values()) > 0


def test_early_stopping_ends_a_step_when_the_held_out_images_get_no_better(monkeypatch):
    scores = iter([0.5, 0.4, 0.3, 0.2, *[0.1] * 20])
    monkeypatch.setattr(stock, "held_out_miou", lambda loop: next(scores))
    early = plugins.EarlyStoppingPlugin(patience=2, val_stream_name="validation", metric_name="mIoU")
    loop = made(early, settings=SETTINGS.model_copy(update={"epochs": 10}))
    epochs = []
    loop.after_epoch = lambda: epochs.append({k: v.clone() for k, v in loop.network.state_dict().items()})
    loop.train(loop.scenario.experiences[:1])
    assert len(epochs) == 3  # the best is the first; two more without a better one
    assert all(torch.equal(value, epochs[0][key]) for key, value in loop.network.state_dict().items())


def test_the_held_out_score_is_the_mean_iou_of_the_images_that_are_evaluated():
    from densecl.check.tiny import TinyImages
    from densecl.runner.evaluation import evaluate

    train = TinyImages(24, seed=1)
    scenario = class_incremental(
        train, TinyImages(8, seed=2), ((1, 2), (3,), (4,)), presence=train.presence(), validation=0.25
    )
    loop, _ = trained(scenario=scenario)
    matrix = torch.tensor(evaluate(loop, 1, 4)[0].confusion)[:4, :4].double()  # labels learnt by step 1
    hits = matrix.diagonal()
    iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
    assert stock.held_out_miou(loop) == pytest.approx(float(iou.nanmean()))


def test_a_plugin_of_a_user_on_avalanches_callbacks_clips_gradients():
    class Clip(plugins.SupervisedPlugin):
        def before_update(self, strategy, **_):
            norms.append(float(torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), 1e-3)))

    norms = []
    _, clipped = trained(Clip())
    _, alone = trained()
    assert min(norms) > 1e-3
    assert any(not torch.equal(alone[0][key], value) for key, value in clipped[0].items())


def test_what_a_plugin_reads_is_there():
    class Reader(plugins.SupervisedPlugin):
        def before_backward(self, strategy, **_):
            batch, _, height, width = strategy.mb_x.shape
            assert strategy.mb_output.shape == (batch, strategy.loop.network.n_outputs, height, width)
            assert strategy.mb_y.shape == (batch, height, width)
            assert len(strategy.mbatch) == 3
            assert strategy.model(strategy.mb_x[:2]).shape[0] == 2
            assert strategy.experience.classes_in_this_experience == [[1, 2], [3]][strategy.clock.train_exp_counter]
            assert strategy.is_training
            steps.add(strategy.clock.train_exp_counter)

    steps = set()
    trained(Reader())
    assert steps == {0, 1}


def test_a_failing_plugin_is_one_line_that_names_it():
    class Broken(plugins.SupervisedPlugin):
        def after_backward(self, strategy, **_):
            raise ValueError("no such thing\nand more")

    with pytest.raises(RunError, match=r"the stock plugin Broken failed in after_backward at step 0: no such thing\."):
        trained(Broken())


@pytest.mark.parametrize("name", [*stock.INSTEAD, "CWRStarPlugin", "GSS_greedyPlugin"])
def test_others_are_refused_with_what_to_use_instead(name):
    with pytest.raises(SettingError, match=rf"Avalanche's {name} does not work here: .*these do: AGEMPlugin"):
        stock.check_stock("mine", getattr(plugins, name), {}, 0.0)


def test_every_plugin_that_is_let_in_is_tried_here():
    names = "LRScheduler LwF Replay GDumb RWalk LFL MIR BiC GenerativeReplay TrainGeneratorAfterExp"
    assert stock.INSTEAD.keys() == {f"{name}Plugin" for name in names.split()}
    assert {*PENALTIES, *PROJECTIONS, "EarlyStoppingPlugin"} == stock.WORKING


@pytest.mark.parametrize(
    ("values", "validation", "message"),
    [
        ({"metric_name": "mIoU", "val_stream_name": "test"}, 0.1, "give it metric_name=mIoU"),
        ({"val_stream_name": "validation"}, 0.1, "give it metric_name=mIoU"),
        ({"metric_name": "mIoU", "val_stream_name": "validation"}, 0.0, "--validation 0.1"),
    ],
)
def test_early_stopping_looks_at_held_out_training_images_only(values, validation, message):
    with pytest.raises(SettingError, match=message):
        stock.check_stock("early", plugins.EarlyStoppingPlugin, values, validation)
