"""The bench's rows and goals; every kind in tiny sizes."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from bench import KINDS, losses, peak, rows, start, trees
from bench.__main__ import measure
from bench.passes import passes
from bench.peak import iterations_of, matmul_peak, measure_share, training_flops
from bench.rows import COST, PEAK, SPEED, WAITING, Bench, Form, Goal, Missing, Row, Spent
from bench_parts import Clock, a_row
from densecl.cli import main
from densecl.data.sets.voc import VOC
from densecl.errors import DataError
from densecl.models import Network, UNet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def _no_data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))  # drawn once for all tests
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nothing"))


# ---- rows


@pytest.mark.parametrize(
    ("sense", "ratio", "iqr"),
    [(SPEED, 4.0, 2.0), (PEAK, 4.0, 2.0), (COST, 1 / 4, 1 / 6), (WAITING, 1 / 4, 1 / 6)],
)
def test_the_ratio_is_the_median_of_the_turns_in_the_sense_of_the_row(clock, sense, ratio, iqr):
    ours, reference = Form("ours", clock.work(1.0)), Form("theirs", clock.work(9.0, 2.0, 6.0, 4.0))
    made = Bench(3).compare("work", ours, reference, sense)
    assert (made.seconds, len(made.turns)) == ((1.0, 4.0), 3)
    assert (made.ratio.median, made.ratio.iqr) == pytest.approx((ratio, iqr))
    assert made.processor == pytest.approx(ratio)
    assert made.names == ("ours", "theirs")


def test_the_median_of_paired_ratios_is_not_the_ratio_of_medians():
    turns = [(Spent(ours), Spent(theirs)) for ours, theirs in ((1.0, 3.0), (2.0, 2.0), (4.0, 8.0))]
    made = Row("work", ("a", "b"), turns, SPEED)
    assert (made.ratio.median, made.seconds[1] / made.seconds[0]) == (2.0, 1.5)
    assert made.processor is None


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (a_row(), None),
        (a_row(goal=Goal(ratio=2.0)), True),
        (a_row(goal=Goal(ratio=2.1)), False),
        (a_row(COST, 1.04, 1.0, goal=Goal(ratio=1.03)), False),
        (a_row(COST, 1.02, 1.0, goal=Goal(ratio=1.03)), True),
        (a_row(memory=0.5, goal=Goal(ratio=2.0, memory=0.6)), True),
        (a_row(memory=0.7, goal=Goal(ratio=2.0, memory=0.6)), False),
        (a_row(goal=Goal(memory=0.6)), False),  # not measured
        (a_row(ours=0.3, goal=Goal(seconds=0.2)), False),
        (a_row(ours=0.1, goal=Goal(seconds=0.2)), True),
    ],
)
def test_a_goal_is_met_when_all_its_parts_are(made, met):
    assert made.met is met


def test_goals_are_those_that_were_set():
    assert losses.GOALS == {"cross-entropy": (2.5, 0.6, None), "distillation": (1.5, None, None)}


# ---- every kind, in tiny sizes

FOUND = {
    "features": 1,
    "harness": 2,
    "loader": 4,
    "index": 2,
    "losses": 2,
    "fused": 3,
    "metrics": 4,
    "inversion": 1,
    "masking": 3,
    "checkpoint": 1,
    "teacher": 3,
    "evaluation": 1,
    "start": 1,
}


@cache
def measured(kind):
    """What two turns of a kind give."""
    return list(measure(kind, Bench(2), small=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_rows_of_its_own(kind):
    found = measured(kind)
    made = [each for each in found if isinstance(each, Row)]
    assert len(made) == FOUND[kind]
    assert {each.kind for each in found} == {kind}
    for each in made:
        assert 0 <= each.ratio.median < math.inf
        assert min(each.seconds) >= 0
        assert all(each.names)
        assert each.goal is None  # of small sizes nothing is asked
    assert len({(each.what, *each.names) for each in made}) == len(made)


def test_both_loops_come_to_the_same_weights():
    training = measured("harness")[0]
    assert isinstance(training, Row)
    assert training.note == "final weights of both are equal bit for bit"


def test_torchmetrics_is_left_out_with_a_line_where_it_is_not_installed(monkeypatch):
    from bench import metrics

    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    found = list(measure("metrics", Bench(1), small=True))
    assert [type(each) for each in found] == [Row, Row, Missing]
    assert "torchmetrics is not installed" in found[-1].line


def test_both_reference_loops_count_what_the_confusion_matrix_counts():
    from bench.metrics import label_maps, list_loop, pixel_loop
    from densecl.metrics import ConfusionMatrix

    prediction, target = label_maps((2, 32, 32), 21, 0)
    assert (target == 255).any()
    matrix = ConfusionMatrix(21)
    matrix.update(prediction[0], target[0])
    assert torch.equal(pixel_loop(prediction[0], target[0], 21), matrix.matrix)
    assert torch.equal(list_loop(prediction[0], target[0], 21), matrix.matrix)


def test_the_bare_evaluation_counts_what_ours_counts(tmp_path):
    from bench.harness import SMALL_BACKBONE, bare_evaluation
    from densecl.runner.build import build_loop, build_network, build_scenario
    from densecl.runner.evaluation import evaluate
    from densecl.runner.plan import make_plan
    from densecl.streams.samples import TestSamples

    plan = make_plan("shapes15-5", "finetune", backbone=SMALL_BACKBONE, device="cpu", output=tmp_path)
    scenario, _ = build_scenario(plan)
    [whole], n = scenario.tests, len(scenario.stream.class_names)
    samples = TestSamples(whole.reader, whole.indices[:12], whole.table, whole.transform)
    scenario = replace(scenario, tests=(samples,))
    loop = build_loop(plan, scenario, build_network(plan.settings))
    loop.enter(scenario.stream.steps[0])
    ours = torch.tensor(evaluate(loop, 0, 4)[0].confusion)
    bare = bare_evaluation(loop, samples, n, 4)
    assert ours.sum() > 0
    assert torch.equal(ours, bare)


def test_the_textbook_forms_of_labels_and_bits_give_what_ours_give():
    from bench.loader import textbook_remap
    from bench.masking import packed_textbook
    from densecl.masking.bits import pack
    from densecl.streams.protocol import lookup_table
    from densecl.streams.samples import remap

    mask = torch.arange(256, dtype=torch.uint8).view(16, 16)
    mapping = {16: 16, 17: 3}
    assert torch.equal(
        textbook_remap(mask, {**mapping, 255: 255}), remap(mask, torch.from_numpy(lookup_table(mapping, 0)))
    )
    bits = torch.rand(77, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(packed_textbook(bits), pack(bits))


# ---- the share of the peak, which is shown on a GPU alone but computed anywhere


def test_operations_of_training_are_those_of_its_convolutions():
    network = Network(UNet(4, depth=1))
    network.grow(3)
    image, target = torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    sizes = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda m, i, o, name=name: sizes.update({name: (m, i[0].shape, o.shape)}))
    network(image)
    forward, backward = 0, 0
    for module, given, made in sizes.values():
        places = given if isinstance(module, torch.nn.ConvTranspose2d) else made  # where the kernel is put down
        own = 2 * places[0] * places[2] * places[3] * module.weight.numel()
        forward += own
        backward += own if given[1] == 3 else 2 * own  # no gradient goes into the image
    assert training_flops(network, image, target) == forward + backward
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_peak_is_the_fastest_of_several_products(monkeypatch, clock):
    monkeypatch.setattr(peak.torch, "mm", lambda a, b, work=clock.work(9.0, 9.0, 9.0, 4.0, 2.0, 5.0): work())
    assert matmul_peak(torch.device("cpu"), torch.float32, size=8, repeats=3) == 2 * 8**3 / 2.0


def test_the_first_epoch_is_not_counted_and_the_others_are_shared_out_over_their_iterations():
    epochs = [Spent(9.0, 9.0), Spent(1.0, 0.5), Spent(2.0, 1.0)]
    assert iterations_of(epochs, 10) == [Spent(0.1, 0.05), Spent(0.2, 0.1)]


def test_the_share_of_the_peak_can_be_measured_on_any_device(monkeypatch):
    monkeypatch.setattr(peak, "matmul_peak", lambda device, dtype, size: 1e12)  # out of reach of any CPU's training
    backbone = {"encoder": "mini", "encoder_widths": (4, 8, 8, 8), "weights": "none", "width": 8, "spatial": (8, 8)}
    backbone |= {"spatial_width": 8, "context_width": 8, "fusion": 1}
    (made,) = measure_share(Bench(2), backbone, size=32, batch=2, iterations=2, precision="fp32", matmul=64)
    assert isinstance(made, Row)
    assert made.sense == PEAK
    assert made.ratio.median == pytest.approx(made.seconds[1] / made.seconds[0], rel=1)
    assert 0 < made.ratio.median < 1
    assert len(made.turns) == 2
    assert "images a second" in made.note


def test_waiting_counts_from_the_second_batch_of_a_pass_on():
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows.time.sleep(0.05)
            return index

    with passes() as ended:
        for _ in range(2):
            for _ in torch.utils.data.DataLoader(Slow()):
                rows.time.sleep(0.02)
    assert len(ended) == 2
    for waited, whole in ended:
        assert 0.1 <= waited.clock < whole.clock
        assert whole.clock >= 0.1 + 3 * 0.02
        assert whole.clock - waited.clock < 0.1  # the first batch is in neither


# ---- the drawn tree


def test_a_tree_is_drawn_where_there_is_none_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    tree = trees.find_tree(None, trees.Drawn(20, 3, (24, 36)))
    assert tree.root.is_relative_to(tmp_path / "cache")
    assert "no VOC tree was found: 23 drawn images of 36x24" in tree.note
    for split, count in (("train", 20), ("val", 3)):
        dataset = VOC(tree.root, split)
        assert len(dataset) == count
        image, mask = dataset.read(0)
        assert image.shape == (3, 24, 36)
        assert {0, 1, 255} <= set(mask.unique().tolist())


def test_a_tree_that_was_named_is_used_or_missed(voc, tmp_path):
    assert trees.find_tree(voc).note == ""
    with pytest.raises(DataError, match="absent"):
        trees.find_tree(tmp_path / "absent")


def test_the_commands_that_are_timed_end_as_they_should(capsys):
    for words, code in start.COMMANDS.items():
        assert main(words.split()) == code, words
