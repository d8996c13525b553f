"""The benchmarks named after papers: network, schedule, crop, rates by part and label rules of the papers' codes."""

import pytest

from densecl.runner.plan import make_plan
from densecl.training.schedule import decay

TEN = {"lr_scale": 10.0}
BEHIND = {"decoder": TEN, "old_heads": TEN, "new_heads": TEN}
FIXED = {"batchnorm": "fixed", "dropout": False, "weight_decay": 0.0}
MIB, DKD, SSUL = (
    ("resnet101", "added", "1x1"),
    ("resnet101.tv_in1k", "concat", "1x1"),
    ("resnet101.tv_in1k", "concat", "3x3"),
)
PLANS = [  # epochs, batch, rates, warm-up, crop, labels, network
    ("voc-mib15-5", "mib", (30, 24, 0.01, 0.001, 0, 512), "mib2020", MIB),
    ("voc-plop15-1", "plop", (30, 24, 0.01, 0.001, 0, 512), "plop2021", MIB),
    ("voc-dkd15-5", "dkd", (60, 32, 0.001, 0.0001, 0, 512), "plop2021", DKD),
    ("voc-ssul15-5", "finetune", (50, 32, 0.01, 0.01, 0, 513), "strict", SSUL),
    ("ade20k-mib100-50", "mib", (60, 24, 0.01, 0.001, 0, 512), "mib2020", MIB),
    ("ade20k-plop100-10", "plop", (60, 24, 0.01, 0.001, 0, 512), "plop2021", MIB),
    ("ade20k-dkd100-50", "dkd", (100, 24, 0.0025, 0.00025, 0.2, 512), "strict", DKD),
    ("ade20k-ssul100-50", "finetune", (100, 24, 0.05, 0.05, 0.1, 513), "strict", SSUL),
]


@pytest.mark.parametrize(("benchmark", "strategy", "numbers", "labels", "network"), PLANS)
def test_the_row_of_a_paper_is_one_command(benchmark, strategy, numbers, labels, network):
    settings = make_plan(benchmark, strategy, device="cpu").settings
    training, values = settings.training, settings.backbone_values
    later = training.rate(1)
    assert (training.epochs, training.batch, training.lr, later, training.warmup, training.crop) == numbers
    assert (training.optimizer, training.momentum, training.weight_decay, training.power) == ("sgd", 0.9, 1e-4, 0.9)
    assert training.augmentation == ("rescale" if "ssul" in benchmark else "reference")
    assert settings.stream.labels == labels
    assert (values["encoder"], values["pooling"], values["head"]) == network
    assert values["output_stride"] == 16
    line = network is MIB
    assert (training.drop_last, training.mean_over) == ((True, "all") if line else (False, "labelled"))
    assert values["act"] == ("leaky" if line else "relu")
    parts = training.parts.model_dump()
    wanted = {"voc-s": {"backbone": {"lr_scale": 0.1}}, "ade20k-s": {"backbone": {"lr_scale": 0.1}}}
    if strategy == "dkd":
        assert parts == BEHIND
        assert training.later.parts.model_dump() == {
            "backbone": FIXED,
            "decoder": FIXED,
            "old_heads": {"weight_decay": 0.0},
        }
    else:
        assert parts == wanted.get(benchmark[: benchmark.index("-") + 2], {})


def test_plop_trains_ten_epochs_a_step_on_its_longest_stream():
    training = make_plan("voc-plop10-1", "plop", device="cpu").settings.training
    assert [training.length(step) for step in (0, 1, 10)] == [(30, None), (10, None), (10, None)]


def test_methods_keep_their_weights_of_a_data_set_on_each_of_its_recipes():
    for benchmark, pod in (("voc-plop15-1", 0.01), ("ade20k-plop100-50", 0.001)):
        assert make_plan(benchmark, "plop", device="cpu").settings.strategy_values["pod"] == pod
    assert make_plan("ade20k-dkd100-50", "dkd", device="cpu").settings.strategy_values["positive"] == 35.0


@pytest.mark.parametrize(
    ("benchmark", "share"),
    [("imagenet-6tasks", 0.5), ("places-7tasks", 0.5), ("classes-7tasks", 0.5), ("decathlon-10tasks", 0.75)],
)
@pytest.mark.parametrize("strategy", ["piggyback", "packnet", "scratch"])
def test_the_rate_of_piggybacks_tables_falls_to_a_tenth_at_one_place(benchmark, share, strategy):
    """After 15 of 30 epochs, and after 45 of the Decathlon's 60 (Mallya et al., ECCV 2018, sections 4 and 6)."""
    settings = make_plan(benchmark, strategy, device="cpu").settings
    assert [round(decay(settings.training, 60, i), 6) for i in (0, int(60 * share) - 1, int(60 * share), 59)] == [
        1,
        1,
        0.1,
        0.1,
    ]
    assert settings.strategy_values.get("schedule", "settings") == "settings"
