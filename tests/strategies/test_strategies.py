import math

import numpy as np
import pytest
import torch
from torch import nn

from densecl import losses
from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario, tiny_sequence
from densecl.errors import RunError, SettingError
from densecl.models.network import Output
from densecl.runner.methods import parse_method
from densecl.settings.recipe import LaterSettings, TrainingSettings
from densecl.training.batch import Batch
from densecl.training.schedule import make_optimizer, make_schedule


def strategy_at(step, text="mib", training=TRAINING):
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method(text), scenario, training=training)
    for experience in scenario.experiences[:step]:
        loop.train([experience])
    loop.enter(scenario.experiences[step])
    loop.strategy.before_step(scenario.experiences[step])
    return loop, scenario


def some_batch(step=1, size=32):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, size, size, generator=generator)
    target = torch.randint(0, 4, (4, size, size), generator=generator)
    target[target == 1] = 0
    target[:, 0] = 255
    steps = torch.tensor([step, step, 0, 0])
    return Batch(image, target, None, steps, torch.arange(4))


@pytest.mark.parametrize("name", ["finetune", "dft"])
def test_of_equal_outputs_the_first_is_predicted(name):
    loop, _ = strategy_at(1, name)
    logits = torch.randint(0, 3, (2, loop.network.n_outputs, 9, 7), generator=torch.Generator().manual_seed(0)).float()
    labels = loop.strategy.predict(Output(logits))
    np.testing.assert_array_equal(labels.numpy(), logits.numpy().argmax(1))


def test_mib_folds_old_labels_only_in_samples_of_the_current_step():
    loop, _ = strategy_at(1)
    batch = some_batch()
    loop.network.eval()
    logits = loop.network(batch.image).logits
    loss = loop.strategy.pixel_loss(logits, batch)
    log_p = logits.detach().double().log_softmax(1).numpy()
    target = batch.target.numpy()
    total, count = 0.0, 0
    for b in range(4):
        for y, x in np.ndindex(32, 32):
            label = target[b, y, x]
            if label == 255:
                continue
            old = b < 2 and label < loop.n_old
            total -= math.log(np.exp(log_p[b, : loop.n_old, y, x]).sum()) if old else log_p[b, label, y, x]
            count += 1
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_mib_starts_new_outputs_as_shares_of_background_on_every_head():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("mib"), scenario)
    loop.train([scenario.experiences[0]])
    image = some_batch().image
    loop.network.train()
    for module in loop.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    before = loop.network(image)
    loop.enter(scenario.experiences[1])
    loop.strategy.before_step(scenario.experiences[1])
    loop.network.train()
    for module in loop.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    after = loop.network(image)
    assert len(after.auxiliary) == len(before.auxiliary) == 2
    for old, new in zip((before.logits, *before.auxiliary), (after.logits, *after.auxiliary), strict=True):
        p, q = old.softmax(1), new.softmax(1)
        torch.testing.assert_close(q[:, 0] + q[:, 3], p[:, 0])
        torch.testing.assert_close(q[:, 1:3], p[:, 1:3])


def test_regularisers_are_the_weighted_losses_of_the_papers():
    batch = some_batch()
    for text, expected in {
        "lwf(weight=7)": lambda o, t: 7 * losses.distillation(o.logits, t.logits),
        "ilt(weight=7,features=3)": lambda o, t: (
            7 * losses.distillation(o.logits, t.logits) + 3 * (o.encoded[-1] - t.encoded[-1]).square().mean()
        ),
        "ilt(weight=7,features=3,place=decoder)": lambda o, t: (
            7 * losses.distillation(o.logits, t.logits) + 3 * (o.decoded - t.decoded).square().mean()
        ),
        "mib(distillation=7)": lambda o, t: 7 * losses.unbiased_distillation(o.logits, t.logits),
    }.items():
        loop, _ = strategy_at(1, text)
        output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
        torch.testing.assert_close(
            loop.strategy.regulariser(output, batch, teacher_output), expected(output, teacher_output)
        )


def test_the_task_loss_sums_the_main_and_both_auxiliary_maps():
    loop, _ = strategy_at(0, "finetune")
    batch = some_batch()
    batch = batch._replace(target=batch.target.clamp(max=2).where(batch.target == 255, batch.target.clamp(max=2)))
    batch.target[batch.target == 255] = 0
    output = loop.network.train()(batch.image)
    maps = [output.logits, *output.auxiliary]
    expected = sum(nn.functional.cross_entropy(m, batch.target) for m in maps)
    assert len(maps) == 3
    torch.testing.assert_close(loop.strategy.task_loss(output, batch, None), expected)


def test_the_teacher_is_the_evaluated_network_of_the_previous_step_and_does_not_learn():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("lwf"), scenario)
    loop.train([scenario.experiences[0]])
    kept = {key: value.clone() for key, value in loop.network.state_dict().items()}
    loop.train([scenario.experiences[1]])
    teacher = loop.teacher
    assert all(torch.equal(kept[key], value) for key, value in teacher.state_dict().items())
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_fine_tuning_computes_no_teacher_output():
    loop, _ = strategy_at(1, "finetune")
    assert loop.teach(some_batch().image) is None


def statistics(network):
    return [m.running_mean.clone() for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(("setting", "moves"), [("train", True), ("frozen", False)])
def test_batchnorm_statistics_move_after_step_0_only_when_trained(setting, moves):
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("mib"), scenario, training=TRAINING.model_copy(update={"batchnorm": setting}))
    loop.train([scenario.experiences[0]])
    first = statistics(loop.network)
    assert any(mean.abs().sum() > 0 for mean in first)
    loop.train([scenario.experiences[1]])
    same = all(torch.equal(a, b) for a, b in zip(first, statistics(loop.network), strict=True))
    assert same is not moves


def test_replay_keeps_a_balanced_memory_and_draws_only_earlier_steps():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("mib+replay(memory=8,ratio=0.5)"), scenario)
    replay = loop.plugins[0]
    seen = []
    extend = replay.extend_keys

    def watch(owner, keys, epoch, iteration):
        result = extend(owner, keys, epoch, iteration)
        seen.append((owner.step, len(keys), result[len(keys) :]))
        return result

    replay.extend_keys = watch
    for experience in scenario.experiences:
        loop.train([experience])
        assert len(replay.kept.keys) <= 8
    assert all(not added for step, _, added in seen if step == 0)
    later = [(step, n, added) for step, n, added in seen if step > 0]
    assert all(len(added) == round(n / 2) for _, n, added in later)
    assert all(key.source < step and key.step == step for step, _, added in later for key in added)
    per_class = [len(keys) for keys in replay.kept.stored.values()]
    assert per_class == [2, 2, 2, 2]


def test_ewc_holds_what_mattered():
    scenario = tiny_scenario()
    moved = {}
    for weight in (0.0, 1e6):
        loop = tiny_loop(parse_method(f"finetune+ewc(form=exact,weight={weight})"), scenario)
        loop.train([scenario.experiences[0]])
        ewc = loop.plugins[0]
        anchor, importance = dict(ewc.anchor), {k: v.clone() for k, v in ewc.importance.items()}
        loop.train([scenario.experiences[1]])
        parameters = dict(loop.network.named_parameters())
        moved[weight] = sum(float((f * (parameters[k] - anchor[k]) ** 2).sum()) for k, f in importance.items())
    assert moved[1e6] < 0.2 * moved[0.0]


def test_ewc_importance_is_the_mean_squared_gradient_of_single_images():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune+ewc(form=exact,images=3)"), scenario)
    loop.train([scenario.experiences[0]])
    ewc, network = loop.plugins[0], loop.network.eval()
    from densecl.seeding import generator

    dataset = scenario.experiences[0].dataset
    chosen = generator(0, "fisher", 0).permutation(len(dataset))[:3]
    name, parameter = next((n, p) for n, p in network.named_parameters() if n.startswith("heads"))
    expected = torch.zeros_like(parameter)
    for position in chosen.tolist():
        image, target = dataset[position][:2]
        loss = nn.functional.cross_entropy(network(image[None]).logits, target[None], ignore_index=255)
        expected += torch.autograd.grad(loss, parameter)[0] ** 2 / 3
    torch.testing.assert_close(ewc.importance[name], expected)


def test_ewc_importance_of_the_published_form_is_a_running_average_of_batches_scaled_in_each_tensor():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune+ewc(images=14)"), scenario)
    loop.train([scenario.experiences[0]])
    ewc, network = loop.plugins[0], loop.network.eval()
    batches = list(loop.strategy.batches("fisher", augment=False))[:3]  # of 6 images: 14 are in three
    name, parameter = next((n, p) for n, p in network.named_parameters() if n.startswith("heads"))
    expected = np.zeros(parameter.shape)
    for batch in batches:
        loss = nn.functional.cross_entropy(network(batch.image).logits, batch.target, ignore_index=255)
        expected = 0.9 * torch.autograd.grad(loss, parameter)[0].double().numpy() ** 2 + 0.1 * expected
    np.testing.assert_allclose(ewc.importance[name], expected, rtol=1e-4)
    low, high = expected.min(), expected.max()
    np.testing.assert_allclose(ewc.scaled[name], (expected - low) / (high - low), rtol=1e-4, atol=1e-6)
    assert all(float(f.min()) >= 0 and float(f.max()) <= 1 for f in ewc.scaled.values())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ewc_refuses_a_weight_just_where_sgd_diverges(momentum):
    """A parameter of importance 1 is driven by torch's SGD: below the limit it comes to rest, above it does not."""
    rate = 0.01
    sgd = {"optimizer": "sgd", "lr": rate, "momentum": momentum, "later": LaterSettings(lr=rate)}
    training = TRAINING.model_copy(update=sgd)
    limit = (1 + momentum) / (1 + 2 * momentum) / rate
    with pytest.raises(SettingError, match=r"diverges under SGD at the rate of 0\.01"):
        tiny_loop(parse_method(f"finetune+ewc(weight={1.01 * limit})"), tiny_scenario(), training=training)
    tiny_loop(parse_method(f"finetune+ewc(weight={0.99 * limit})"), tiny_scenario(), training=training)
    for share, rests in ((0.99, True), (1.01, False)):
        value = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        sgd = torch.optim.SGD([value], lr=rate, momentum=momentum, nesterov=momentum > 0)
        for _ in range(3000):
            value.grad = 2 * share * limit * value.detach()
            sgd.step()
        assert (abs(float(value.detach())) < 1) is rests


def test_ewc_holds_at_its_default_weight():
    scenario, moved, importance = tiny_scenario(), {}, {}
    for text in ("", "(weight=0)", "(form=exact)"):
        loop = tiny_loop(parse_method(f"finetune+ewc{text}"), scenario)
        loop.train([scenario.experiences[0]])
        ewc = loop.plugins[0]
        anchor, importance = ewc.anchor, importance or ewc.scaled
        loop.train([scenario.experiences[1]])
        parameters = {name: p.detach() for name, p in loop.network.named_parameters()}
        moved[text] = sum(float((f * (parameters[k] - anchor[k]) ** 2).sum()) for k, f in importance.items())
    assert moved[""] < 0.5 * moved["(weight=0)"]
    assert moved["(form=exact)"] > 0.9 * moved["(weight=0)"]  # whose importance is so much smaller


def rates(settings, step):
    """The learning rates of ten iterations."""
    optimizer = make_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}], settings, step)
    schedule = make_schedule(optimizer, settings, 10)
    found = []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [4, 0.4])  # iterations, or a share of them
def test_the_learning_rate_is_polynomial_per_iteration_after_a_linear_warm_up(warmup):
    settings = TrainingSettings(iterations=10, lr=1.0, warmup=warmup, later=LaterSettings(lr=0.5))
    for step, rate in ((0, 1.0), (2, 0.5)):
        expected = [rate * min(1, (i + 1) / 4) * (1 - i / 10) ** 0.9 for i in range(10)]
        assert rates(settings, step) == pytest.approx(expected)


def test_the_learning_rate_falls_in_steps_at_milestones():
    settings = TrainingSettings(lr=0.1, power=0, milestones=(0.5, 0.8), gamma=0.2, warmup=2)
    assert rates(settings, 0) == pytest.approx([0.05, *[0.1] * 4, *[0.02] * 3, *[0.004] * 2])


def test_packnet_retrains_at_one_rate_where_training_falls_in_steps():
    training = TRAINING.model_copy(update={"power": 0, "milestones": (0.5,), "warmup": 0})
    loop = tiny_loop(parse_method("packnet(retrain_lr=0.3)"), tiny_sequence(), training=training)
    rates = [loop.strategy._factor(12, i) for i in range(12)]
    assert rates == pytest.approx([*[1.0] * 4, *[0.1] * 4, *[0.3] * 4])


def test_parameters_may_have_their_first_gradient_after_others_did():
    """As in training by turns; the fused kernel of SGD fails on it by itself."""
    settings = TRAINING.model_copy(update={"optimizer": "sgd", "lr": 0.1, "warmup": 0})
    ours = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    plain = torch.optim.SGD(
        theirs, lr=0.1, momentum=settings.momentum, nesterov=True, weight_decay=settings.weight_decay, foreach=False
    )
    for parameters, optimizer in ((ours, make_optimizer([{"params": ours}], settings, 0)), (theirs, plain)):
        for turn in ((0,), (0,), (0, 1), (1,), (0, 1)):
            optimizer.zero_grad(set_to_none=True)
            sum(parameters[k].square().sum() for k in turn).backward()
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("lwf"), scenario)
    loop.train([scenario.experiences[0]])
    loop.strategy.regulariser = lambda *_: torch.tensor(float("nan"))
    with pytest.raises(RunError, match=r"step 1, epoch 0, iteration 0: regulariser is nan"):
        loop.train([scenario.experiences[1]])


def test_iterations_can_be_counted_instead_of_epochs():
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update={"iterations": 7, "later": LaterSettings(iterations=3)})
    loop = tiny_loop(parse_method("finetune"), scenario, training=training)
    done = []
    for experience in scenario.experiences:
        loop.train([experience])
        done.append(loop.iterations)
    assert done == [7, 3, 3]


def test_joint_trains_all_labels_in_one_step():
    scenario = tiny_scenario(joint=True)
    assert len(scenario.experiences) == 1
    assert scenario.experiences[0].new_classes == (1, 2, 3, 4)
    assert scenario.stream.groups == ((1, 2), (3,), (4,))
    assert tiny_network().n_outputs == 0


def test_deepinversion_refuses_a_backbone_without_batchnorm_when_the_run_is_built():
    network = tiny_network("unet", width=4, depth=2, norm="instance")
    with pytest.raises(SettingError, match="BatchNorm"):
        tiny_loop(parse_method("mib+deepinversion(images_per_class=3,iterations=4)"), tiny_scenario(), network)
