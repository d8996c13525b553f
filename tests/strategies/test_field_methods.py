"""DFT*, the frozen control, DKD and NeST in training: what moves, what stays, where new outputs begin."""

import pytest
import torch

from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.strategies.dkd import decompose
from trained_loops import next_batch, state, trained

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- fixed bodies


@pytest.mark.parametrize("method", ["frozen", "dft"])
def test_body_statistics_and_earlier_heads_are_bit_equal_after_later_steps(method):
    loop = trained(method)
    for step in (1, 2):
        before = state(loop)
        loop.train(loop.scenario.experiences[step : step + 1])
        moved = {name for name, value in state(loop).items() if name in before and not torch.equal(value, before[name])}
        later = {name for name in before if name.startswith("heads.") and int(name.split(".")[3]) >= step}
        assert moved <= later
        assert len(loop.network.heads.places[0]) == (3 if method == "dft" else step + 1)
        if method == "dft":  # heads of this step and of those to come learn; the auxiliary ones see nothing any more
            assert moved == {name for name in later if name.startswith("heads.places.0.")}


def test_outputs_of_later_steps_stand_in_every_softmax_and_are_not_predicted():
    loop = trained("dft")
    image = torch.rand(2, 3, 32, 32)
    output = loop.network.eval()(image)
    assert output.logits.shape[1] == 5
    assert loop.network.n_outputs == 3
    logits = torch.zeros(1, 5, 2, 2)
    logits[:, 3:] = 9
    logits[:, 2] = 1
    assert loop.strategy.predict(output._replace(logits=logits)).eq(2).all()
    batch = next_batch(loop, 1)
    logits = torch.zeros(len(batch.image), 5, 32, 32)
    share = float((batch.target != 255).float().mean())  # the mean is over all pixels
    assert float(loop.strategy.pixel_loss(logits, batch)) == pytest.approx(share * torch.tensor(5.0).log().item())
    assert loop.strategy.oracle == "classes"


# ---- DKD


def test_new_classes_start_from_the_head_that_says_no_and_background_has_no_output():
    loop = trained("dkd")
    no = loop.network.heads.no
    assert [head.weight.shape[0] for head in loop.network.heads.places[0]] == [2]  # two classes, three labels
    assert loop.network.n_outputs == 3
    loop.begin(loop.scenario.experiences[1])
    newest = loop.network.heads.places[0][-1]
    assert torch.equal(newest.weight, no.weight)
    assert torch.equal(newest.bias, no.bias)


def test_the_head_that_says_no_reaches_no_feature():
    loop = trained("dkd")
    batch = next_batch(loop, 1)
    output = loop.network(batch.image)
    loop.network.zero_grad()
    loop.strategy.task_loss(output._replace(logits=output.logits.detach(), auxiliary=()), batch, None).backward()
    assert loop.network.heads.no.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in loop.network.backbone.parameters())


def softplus(z):
    return torch.log1p((-z.abs()).exp()) + z.clamp(min=0)


def test_the_loss_of_a_later_step_is_that_of_its_classes_alone_and_void_is_negative():
    loop = trained("dkd(positive=3)")
    batch = next_batch(loop, 1)
    logits = torch.randn(len(batch.image), 3, 32, 32, dtype=torch.float64)
    own = batch.target == 3
    expected = torch.where(own, 3 * softplus(-logits[:, 2]), softplus(logits[:, 2])).mean()
    assert (batch.target == 255).any()
    assert float(loop.strategy.pixel_loss(logits, batch)) == pytest.approx(float(expected), rel=1e-6)


def test_a_replayed_image_teaches_the_classes_of_its_own_step():
    loop = trained("dkd+replay(memory=8)")
    batch = next_batch(loop, 1)
    replayed = batch.step == 0
    assert replayed.any()
    logits = torch.randn(len(batch.image), 3, 32, 32, dtype=torch.float64)
    total = 0.0
    for image, label, old in zip(logits, batch.target, replayed, strict=True):
        for channel in (0, 1) if old else (2,):
            total += torch.where(label == channel + 1, softplus(-image[channel]), softplus(image[channel])).sum()
    assert float(loop.strategy.pixel_loss(logits, batch)) == pytest.approx(
        float(total) / batch.target.numel(), rel=1e-6
    )


def test_old_logits_and_their_parts_are_distilled_with_their_weights():
    loop = trained("dkd(distillation=2,decomposed=3)")
    batch = next_batch(loop, 1)
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    weight, before = loop.network.heads.places[0][0].weight, loop.teacher.heads.places[0][0].weight
    pairs = [(2, output.logits[:, :2], teacher_output.logits)]
    pairs += [
        (3, a, b)
        for a, b in zip(decompose(output.decoded, weight), decompose(teacher_output.decoded, before), strict=True)
    ]
    expected = 0.0
    for factor, z, t in pairs:
        q = t.sigmoid()
        expected += factor * float((q * softplus(-z) + (1 - q) * softplus(z)).sum(1).mean().detach())
    assert loop.strategy.regulariser(output, batch, teacher_output).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "words"), [("dkd", "values below 0"), ("plop", "no stages")])
def test_a_backbone_that_lacks_what_a_method_needs_is_refused_when_the_run_is_planned(method, words):
    with pytest.raises(SettingError, match=f"{method}: .*{words}"):
        make_plan("shapes15-5", method, backbone="unet")
    make_plan("shapes15-5", method)


def test_a_backbone_of_ones_own_is_refused_by_the_loop_too():
    with pytest.raises(SettingError, match="values below 0"):
        tiny_loop(parse_method("dkd"), tiny_scenario(), tiny_network("unet", width=4, depth=2))


def test_synthesis_is_refused_where_no_output_stands_for_background():
    with pytest.raises(SettingError, match="a softmax over background and classes, and dkd has none"):
        trained("dkd+deepinversion", steps=0)


# ---- NeST


@pytest.mark.parametrize("base", ["mib", "plop"])
def test_nest_scales_new_rows_like_old_ones_and_undoes_the_strategys_start(base):
    loop = trained(f"{base}+nest")
    statistics = {name: b.clone() for name, b in loop.network.named_buffers() if name.endswith("running_mean")}
    old = {name: p.clone() for name, p in loop.network.heads.places[0][0].named_parameters()}
    body = {name: p.clone() for name, p in loop.network.backbone.named_parameters()}
    loop.begin(loop.scenario.experiences[1])
    first, newest = loop.network.heads.places[0]
    rows = old["weight"].flatten(1).norm(dim=1)
    assert newest.weight.flatten(1).norm(dim=1).mean().item() == pytest.approx(rows.mean().item(), rel=1e-5)
    assert newest.bias.norm().item() == pytest.approx(old["bias"].norm().item(), rel=1e-5)
    assert first.weight[0].norm().item() == pytest.approx(rows[0].item(), rel=1e-5)
    assert not torch.equal(first.weight[0], old["weight"][0])  # background's row was trained
    assert torch.equal(first.weight[1:], old["weight"][1:])
    assert torch.equal(first.bias, old["bias"])  # MiB's and PLOP's start lowers background's
    assert all(torch.equal(p, body[name]) for name, p in loop.network.backbone.named_parameters())
    moved = [name for name, b in loop.network.named_buffers() if name in statistics and not b.equal(statistics[name])]
    assert len(moved) > len(statistics) / 2


def test_nest_learns_a_better_start_than_none():
    """The new class is already told from background before the step's own training begins."""
    losses = {}
    for method in ("finetune", "finetune+nest(lr_scale=30)"):
        loop = trained(method)
        loop.begin(loop.scenario.experiences[1])
        with torch.no_grad():
            batches = list(loop.strategy.batches("look"))
            seen = [loop.strategy.pixel_loss(loop.network(batch.image).logits, batch) for batch in batches]
        losses[method] = float(sum(seen))
    plain, started = losses.values()
    assert started < plain


@pytest.mark.parametrize("fixed", [True, False])
def test_nest_fixes_earlier_heads_where_it_is_asked_to(fixed):
    loop = trained(f"mib+nest(fix_heads={fixed})".replace("True", "true").replace("False", "false"))
    loop.begin(loop.scenario.experiences[1])
    assert {p.requires_grad for p in loop.network.heads.places[0][0].parameters()} == {not fixed}
    assert all(p.requires_grad for p in loop.network.heads.places[0][-1].parameters())


@pytest.mark.parametrize("method", ["dkd+nest", "dft+nest"])
def test_nest_is_refused_where_outputs_are_of_another_kind(method):
    with pytest.raises(SettingError, match=f"nest does not go with {method[:3]}"):
        trained(method, steps=0)


@pytest.mark.parametrize("method", ["mib+nest", "dkd"])
def test_heads_without_rows_are_refused(method):
    network = tiny_network("fcn", encoder="mini", weights="none", upsampling="learned")
    with pytest.raises(SettingError, match="1x1 convolutions with bias, and here they are LearnedUpsampling"):
        tiny_loop(parse_method(method), tiny_scenario(), network)
