"""Frozen encoders, and their maps kept on disk: the same bits whatever the cache has."""

from pathlib import Path

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario, tiny_sequence
from densecl.errors import SettingError
from densecl.models.encoders import Encoder
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.settings.recipe import TrainingSettings, build
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import TaskSource, task_sequence
from densecl.tasks import Segmentation
from densecl.tasks.colorization import Colorization

pytestmark = pytest.mark.usefixtures("one_thread")
LATER = {"later": {"freeze": "encoder", "lr": 1e-3}}
CACHED = {"cache_features": True, **LATER}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    return tmp_path / "features"


def settings(**changes):
    return build(TrainingSettings, {**TRAINING.model_dump(), **changes}, "training")


def made(method="finetune", network=None, gib=1.0, **changes):
    return tiny_loop(parse_method(method), tiny_scenario(), network, settings(**changes), cache_gib=gib)


def trained(loop, steps=2):
    loop.train(loop.scenario.experiences[:steps])
    return {name: value.clone() for name, value in loop.network.state_dict().items()}


def same(one, other):
    return all(value.equal(other[name]) for name, value in one.items())


AGEM = "finetune+avalanche.training.plugins:AGEMPlugin(patterns_per_experience=8, sample_size=8)"


@pytest.mark.parametrize("method", ["finetune", "mib", "finetune+ewc", "mib+replay(memory=4)", "mib+nest", AGEM])
def test_a_frozen_encoder_stays_what_it_is_and_the_rest_is_trained(method):
    loop = made(method, **LATER)
    states = []
    for experience in loop.scenario.experiences[:2]:
        loop.train([experience])
        states.append({k: v.clone() for k, v in loop.network.backbone.state_dict().items()})
    before, after = ({k: v for k, v in state.items() if k.startswith("encoder.")} for state in states)
    assert before
    assert same(before, after)  # statistics of BatchNorm too
    others = [k for k in states[0] if not k.startswith("encoder.") and k.endswith("weight")]
    assert all(not states[0][k].equal(states[1][k]) for k in others)


def test_it_may_be_frozen_from_the_start():
    loop = made(freeze="encoder")
    encoder = loop.network.backbone.encoder
    states = [{k: v.clone() for k, v in encoder.state_dict().items()}]
    for experience in loop.scenario.experiences[:2]:
        loop.train([experience])
        states.append({k: v.clone() for k, v in encoder.state_dict().items()})
    assert same(states[0], states[1])
    assert same(states[1], states[2])


def test_an_encoder_that_is_no_child_is_all_before_the_decoder():
    network = tiny_network("unet", width=4, depth=2)
    assert network.backbone.encoder_modules == [network.backbone.down]
    loop = made(network=network, freeze="encoder")
    loop.begin(loop.scenario.experiences[0])
    assert not any(p.requires_grad for p in network.backbone.down.parameters())
    assert all(p.requires_grad for p in network.backbone.merge.parameters())


def test_without_it_settings_are_those_of_before():
    content = TrainingSettings().model_dump()
    assert not {"freeze", "cache_features"} & {*content, *content["later"]}


# ---- the cache


def count_passes(monkeypatch):
    """Images that the tiny encoder sees, one number for each pass in which a step trains."""
    passes = []
    forward = type(tiny_network().backbone.encoder).forward

    def counted(self, image):
        passes.append(len(image))
        return forward(self, image)

    monkeypatch.setattr(type(tiny_network().backbone.encoder), "forward", counted)
    return passes


def test_maps_are_computed_once_for_each_image_and_its_mirror_and_the_teacher_has_them_too(cache, monkeypatch):
    loop = made("mib", **CACHED, epochs=3)
    loop.train(loop.scenario.experiences[:1])
    assert not cache.exists()
    passes = count_passes(monkeypatch)
    loop.train(loop.scenario.experiences[1:2])
    images = len(loop.scenario.experiences[1].images.indices)
    assert passes == [1] * images  # each alone; tiny images are not mirrored
    loaded = loop.scenario.training[SampleKey(1, 0, 1, 0)].image
    for image in (loaded, loaded.flip(-1), loaded.flip(-1)):
        loop.features(image[None], torch.rand(1, *image.shape), loop.task)
    assert len(passes) == images + 1
    [folder] = cache.iterdir()
    assert len(list(folder.iterdir())) == images + 1


def test_maps_of_one_task_are_not_those_of_another_that_changes_the_image(cache):
    images = tiny_sequence(), tiny_sequence()
    scores = []
    for scenario, gib in zip(images, (0.0, 1.0), strict=True):
        sources = [
            TaskSource(task, scenario.training.readers[0], scenario.tests[0].reader)
            for task in (Segmentation("squares", classes=4), Colorization("colours"))
        ]
        sequence = task_sequence(sources, seed=0)
        loop = tiny_loop(
            parse_method("finetune"), sequence, None, settings(freeze="encoder", cache_features=True), cache_gib=gib
        )
        for experience in sequence.experiences:
            loop.train([experience])
            scores.append([scored.metrics for scored in evaluate(loop, experience.step, 4)])
    assert scores[:2] == scores[2:]


def test_a_method_that_changes_the_frozen_encoder_is_refused_before_its_maps_are_kept(cache):
    loop = made(**CACHED, freeze="encoder")
    loop.begin(loop.scenario.experiences[0])
    loop.begin_epoch()
    batches = iter(loop.loader)
    loop.update(next(batches))
    files = sorted(cache.rglob("*"))
    state = loop.network.backbone.encoder.state_dict()
    loop.network.backbone.encoder.load_state_dict(state)  # the same numbers
    loop.features._check_unchanged()
    next(loop.network.backbone.encoder.buffers()).add_(0.5)
    with pytest.raises(SettingError, match="the method has changed the frozen encoder"):
        loop.update(next(batches))
    assert sorted(cache.rglob("*")) == files


def test_a_file_that_could_not_be_written_leaves_nothing(cache, monkeypatch):
    loop = made(**CACHED, freeze="encoder")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    loop.begin(loop.scenario.experiences[0])
    loop.begin_epoch()
    loop.update(next(iter(loop.loader)))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_numbers_are_those_of_the_network_but_for_rounding():
    plain, kept = made("mib", **LATER, augmentation="none"), made("mib", **CACHED | {"augmentation": "none"})
    one, other = trained(plain), trained(kept)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0.02, atol=2e-3)
    assert not same(one, other)


def test_weights_do_not_depend_on_what_the_cache_has(cache):
    cold = trained(made(**CACHED))
    files = [path for path in cache.rglob("*") if path.is_file()]
    warm = trained(made(**CACHED))
    assert same(cold, warm)
    for path in files[::2]:
        content = bytearray(path.read_bytes())
        content[7] ^= 1
        path.write_bytes(content)
    files[1].unlink()
    assert same(cold, trained(made(**CACHED)))
    assert files[1].is_file()
    assert same(cold, trained(made(**CACHED, gib=0)))


def test_test_images_are_seen_through_kept_maps_rounded_as_those_of_training(monkeypatch):
    loop = made(freeze="encoder", cache_features=True)
    loop.train(loop.scenario.experiences[:1])
    first, passes = evaluate(loop, 0, 4), count_passes(monkeypatch)
    restored = made(freeze="encoder", cache_features=True)
    restored.enter(restored.scenario.experiences[0])
    restored.network.load_state_dict(loop.network.state_dict())
    assert evaluate(restored, 0, 3)[0].confusion == first[0].confusion  # a batch of another size
    assert passes == [1]  # for the shapes of maps; their values are read


def test_a_full_cache_is_said_once_and_changes_nothing(cache):
    heard = []
    limit = 6_000
    loop = made(**CACHED, gib=limit / 2**30)

    class Events:
        line = heard.append

        def __getattr__(self, _name):
            return lambda *_args, **_values: None

    loop.events = Events()
    full = trained(loop)
    assert len(heard) == 1
    assert "are full; raise loader.cache_gib" in heard[0]
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= limit
    assert same(full, trained(made(**CACHED)))


def test_another_encoder_or_precision_has_maps_of_its_own():
    frozen = {"freeze": "encoder", "cache_features": True}

    def folder(network=None, step=0, **changes):
        scenario = tiny_sequence()
        loop = tiny_loop(parse_method("finetune"), scenario, network, settings(**frozen, **changes), cache_gib=1.0)
        for experience in scenario.experiences[: step + 1]:
            loop.begin(experience)
        return loop.features.folder.name

    other = tiny_network()
    with torch.no_grad():
        next(other.backbone.encoder.parameters())[0] += 1e-3
    assert len({folder(), folder(other), folder(precision="bf16")}) == 3
    assert folder() == folder(step=2)


def test_another_task_has_maps_of_its_own(cache):
    scenario = tiny_sequence()
    frozen = settings(freeze="encoder", cache_features=True)
    loop = tiny_loop(parse_method("finetune"), scenario, None, frozen, cache_gib=1.0)
    loop.begin(scenario.experiences[0])
    loop.begin_epoch()
    loaded = scenario.training[SampleKey(0, 0, 0, 0)].image
    for task in scenario.stream.tasks[:2]:  # of the second one the network sees luminance
        loop.features(loaded[None], torch.rand(1, *loaded.shape), task)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 2


def test_a_teacher_with_another_encoder_computes_its_own_maps():
    loop = made("mib", **CACHED)
    loop.train(loop.scenario.experiences[:1])
    loop.begin(loop.scenario.experiences[1])
    assert loop.features.teaches
    with torch.no_grad():
        next(loop.network.backbone.encoder.parameters()).add_(1)
    assert not type(loop.features)(loop).teaches


def test_replayed_images_pass_the_shared_encoder_once_with_the_same_bits(monkeypatch):
    """They have no kept maps; the network and its teacher have one encoder."""
    method = "mib+deepinversion(iterations=2, images_per_class=1)"
    wanted = trained(made(method, **CACHED))  # from now on images and maps are at hand
    passes = count_passes(monkeypatch)
    assert same(trained(made(method, **CACHED)), wanted)
    number = len(passes)
    monkeypatch.setattr("densecl.training.features.shared", lambda loop, image: None)
    assert same(trained(made(method, **CACHED)), wanted)
    assert len(passes) > 2 * number > 0


def test_values_beyond_float16_are_refused():
    loop = made(**CACHED)
    loop.train(loop.scenario.experiences[:1])
    with torch.no_grad():
        for parameter in loop.network.backbone.encoder.parameters():
            parameter.mul_(1e3)
    with pytest.raises(SettingError, match="float16 cannot hold"):
        loop.train(loop.scenario.experiences[1:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_features": True}, "needs a frozen encoder"),
        ({**CACHED, "augmentation": "reference", "crop": 32}, "never shows an image twice"),
        ({**CACHED, "accumulation": 2}, "accumulation"),
        ({**CACHED, "compile": True}, "compile"),
        ({"freeze": "decoder"}, "freeze"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        settings(**changes)


def test_networks_and_methods_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match="UNet has no encoder of its own"):
        made(network=tiny_network("unet", width=4, depth=2), **CACHED)
    with pytest.raises(SettingError, match="before their last activation"):
        made("plop", **CACHED)
    with pytest.raises(SettingError, match=r"training\.freeze does not go with piggyback"):
        make_plan("shapes-3tasks", "piggyback", assignments=["training.later.freeze=encoder"])
    plan = make_plan("shapes-3tasks", "lwf", assignments=["training.later.freeze=encoder"])
    assert plan.settings.training.freezes(1)
    assert issubclass(type(tiny_network().backbone.encoder), Encoder)
