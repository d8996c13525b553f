"""Errors of torch and timm in words, and values that could only end in such errors."""

import pytest
import torch
from timm.layers import PatchEmbed

from densecl.errors import RunError, SettingError
from densecl.runner.methods import parse_method
from densecl.settings.recipe import DataSettings, EvaluationSettings, RunSettings, TrainingSettings, build
from densecl.training.failures import explained, worded

SETTINGS = RunSettings(benchmark="b", strategy="s", backbone="bisenet", backbone_values={"encoder": "swin_t"})


def caught(call):
    with pytest.raises(Exception) as error:  # noqa: PT011 (any kind)
        call()
    return error.value


def out_of_memory(**training):
    settings = SETTINGS.model_copy(update={"training": TrainingSettings(**training)})
    return str(explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), settings))


def test_an_encoder_that_refuses_the_size_of_the_images_is_named_with_the_settings_that_decide_it():
    error = caught(lambda: PatchEmbed(img_size=32, patch_size=4)(torch.zeros(1, 3, 48, 48)))
    shown = explained(error, SETTINGS)
    assert isinstance(shown, SettingError)
    assert "the encoder swin_t refuses images" in str(shown)
    assert "training.crop=512, evaluation.size=512" in str(shown)


def test_other_errors_stay_what_they_are():
    error = caught(lambda: torch.zeros(2) @ torch.zeros(3))
    assert explained(error, SETTINGS) is error


def test_a_network_that_does_not_fit_into_memory_is_named():
    with (
        pytest.raises(RunError, match=r"no memory for the network bisenet\(encoder=swin_t\)"),
        worded(SETTINGS, making=True),
    ):
        torch.empty(1 << 52)


@pytest.mark.parametrize(
    ("training", "named", "absent"),
    [
        ({"batch": 24}, ["training.accumulation=2", "training.batch=12", "training.crop=384"], []),
        ({"batch": 24, "accumulation": 8}, ["training.batch=12"], ["accumulation=16"]),
        (
            {"batch": 4, "crop": "full", "augmentation": "flip"},
            ["training.accumulation=2", "training.batch=2"],
            ["crop="],
        ),
        ({"batch": 2, "precision": "bf16"}, ["training.crop=384"], ["training.batch=", "training.accumulation="]),
    ],
)
def test_advice_where_memory_is_short_asks_for_less_than_there_was(training, named, absent):
    advice = out_of_memory(**training).partition(". ")[2]
    assert all(text in advice for text in named)
    assert not any(text in advice for text in absent)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (DataSettings, {"std": [0.2, 0, 0.2]}, "greater than 0"),
        (DataSettings, {"std": [0.2, -1, 0.2]}, "greater than 0"),
        (DataSettings, {"mean": [1e30, 0.4, 0.4]}, "less than or equal to 1"),
        (DataSettings, {"mean": [float("nan"), 0.4, 0.4]}, "data"),
        (EvaluationSettings, {"size": 1}, "greater than or equal to 2"),
        (TrainingSettings, {"crop": 1}, "greater than or equal to 2"),
    ],
)
def test_numbers_that_make_no_image_are_refused_when_they_are_read(model, values, message):
    with pytest.raises(SettingError, match=message):
        build(model, values, "data")


@pytest.mark.parametrize(
    "text",
    [
        "lwf(weight=-1)",
        "lwf(temperature=0)",
        "ilt(features=-1)",
        "mib(distillation=-1)",
        "plop(pod=-1)",
        "plop(pod_logits=-1)",
        "finetune+ewc(weight=-1)",
        "finetune+replay(ratio=-1)",
        "mib+deepinversion(weight=-1)",
    ],
)
def test_weights_of_losses_are_not_negative(text):
    method = parse_method(text)
    with pytest.raises(SettingError, match="should be greater than"):
        [part.resolved() for part in method.parts]
