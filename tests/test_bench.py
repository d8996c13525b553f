"""The bench's own arithmetic, from clocks that are told what to show; every kind in tiny sizes; the command."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from densecl.bench import KINDS, goals, suite, timing, trees
from densecl.bench.peak import EpochClock, matmul_peak, measure_share, training_flops
from densecl.bench.rows import Bench, Goal, Missing, Row, Sense, row
from densecl.bench.suite import Report
from densecl.bench.table import number, render, time_text
from densecl.bench.timing import Form, Spent, in_turn, stopwatch
from densecl.cli import main
from densecl.data.voc import VOC
from densecl.errors import DataError
from densecl.models import Network, UNet

pytestmark = pytest.mark.usefixtures("one_thread")


class Clock:
    """A stopwatch whose times are those that the work says it took."""

    def __init__(self):
        self.now = 0.0

    def work(self, *seconds):
        """Work that takes these times, one after the other, and the last ever after."""
        left = list(seconds)

        def work(*_):
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work

    def __call__(self, work):
        start = self.now
        work()
        return Spent(self.now - start, (self.now - start) / 2)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def _no_data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))  # drawn once for all tests
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nothing"))


# ---- timing


def test_forms_take_turns_and_every_second_turn_is_the_other_way_round(clock):
    order = []
    forms = [Form(name, lambda name=name: order.append(name)) for name in "ab"]
    spent = in_turn(forms, 3, clock, warmup=2)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"
    assert [len(turns) for turns in spent] == [3, 3]


def test_warm_up_is_not_counted(clock):
    (spent,) = in_turn([Form("a", clock.work(100.0, 2.0, 3.0))], 2, clock)
    assert [each.seconds for each in spent] == [2.0, 3.0]


def test_short_work_is_repeated_and_one_call_is_what_counts(clock):
    calls = []
    work = clock.work(0.004)
    (spent,) = in_turn([Form("a", lambda: (calls.append(1), work()))], 2, clock, least=0.02)
    assert len(calls) == 1 + 2 * 5
    assert [each.seconds for each in spent] == pytest.approx([0.004, 0.004])


def test_what_is_prepared_is_handed_over_and_not_timed(clock):
    made, used, work = [], [], clock.work(1.0)

    def prepare():
        clock.now += 50
        made.append(len(made))
        return made[-1]

    (spent,) = in_turn([Form("a", lambda given: (used.append(given), work()), prepare)], 2, clock, least=9.0)
    assert [each.seconds for each in spent] == [1.0, 1.0]
    assert used == made == [0, 1, 2]


def test_a_part_of_the_work_counts_as_often_as_its_form_says(clock):
    (spent,) = in_turn([Form("a", clock.work(2.0), scale=8.0)], 1, clock)
    assert spent == [Spent(16.0, 8.0)]


def test_the_clock_of_a_cpu_measures_time_and_work():
    waited = stopwatch(torch.device("cpu"))(lambda: timing.time.sleep(0.05))
    assert 0.05 <= waited.seconds < 5
    assert waited.processor < 0.05


def test_the_clock_of_a_gpu_is_two_events_of_its_own_with_nothing_else_under_way(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.name = "start" if "start" not in said else "end"
            said.append(self.name)

        def record(self):
            said.append(f"record {self.name}")

        def synchronize(self):
            said.append(f"wait for {self.name}")

        def elapsed_time(self, other):
            assert (self.name, other.name) == ("start", "end")
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: said.append("wait for all"))
    spent = stopwatch(torch.device("cuda"))(lambda: said.append("work"))
    assert spent.seconds == 0.25
    assert said == ["start", "end", "wait for all", "record start", "work", "record end", "wait for end"]


# ---- rows


@pytest.mark.parametrize(
    ("sense", "ratio", "low", "high"),
    [
        (Sense.SPEED, 4.0, 2.0, 6.0),
        (Sense.PEAK, 4.0, 2.0, 6.0),
        (Sense.COST, 1 / 4, 1 / 6, 1 / 2),
        (Sense.WAITING, 1 / 4, 1 / 6, 1 / 2),
    ],
)
def test_the_ratio_is_the_median_of_the_turns_in_the_sense_of_the_row(clock, sense, ratio, low, high):
    ours, reference = Form("ours", clock.work(1.0)), Form("theirs", clock.work(9.0, 2.0, 6.0, 4.0))
    made = Bench(3, watch=clock).compare("losses", "work", ours, reference, sense)
    assert (made.seconds, made.reference_seconds, made.repeats) == (1.0, 4.0, 3)
    assert (made.ratio, made.low, made.high) == pytest.approx((ratio, low, high))
    assert made.processor_ratio == pytest.approx(ratio)
    assert (made.ours, made.reference) == ("ours", "theirs")


def test_the_median_of_paired_ratios_is_not_the_ratio_of_medians():
    ours = [Spent(s, 0.0) for s in (1.0, 2.0, 4.0)]
    theirs = [Spent(s, 0.0) for s in (3.0, 2.0, 8.0)]
    made = row("losses", "work", ("a", "b"), (ours, theirs), Sense.SPEED)
    assert (made.ratio, made.reference_seconds / made.seconds) == (2.0, 1.5)
    assert made.processor_ratio is None


def a_row(sense=Sense.SPEED, ratio=2.0, seconds=1.0, **more):
    return Row("losses", "work", "ours", "textbook", sense, seconds, 2.0, ratio, 1.0, 3.0, 2.0, 5, **more)


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (a_row(), None),
        (a_row(goal=Goal(ratio=2.0)), True),
        (a_row(goal=Goal(ratio=2.1)), False),
        (a_row(Sense.COST, 1.04, goal=Goal(ratio=1.03)), False),
        (a_row(Sense.COST, 1.02, goal=Goal(ratio=1.03)), True),
        (a_row(memory_ratio=0.5, goal=Goal(ratio=2.0, memory=0.6)), True),
        (a_row(memory_ratio=0.7, goal=Goal(ratio=2.0, memory=0.6)), False),
        (a_row(goal=Goal(memory=0.6)), False),  # not measured
        (a_row(seconds=0.3, goal=Goal(seconds=0.2)), False),
        (a_row(seconds=0.1, goal=Goal(seconds=0.2)), True),
    ],
)
def test_a_goal_is_met_when_all_its_parts_are(made, met):
    assert made.met is met


def test_goals_are_those_that_were_set():
    unbiased = goals.UNBIASED_CROSS_ENTROPY
    assert (unbiased.ratio, unbiased.memory, unbiased.seconds) == (2.5, 0.6, None)
    assert goals.UNBIASED_DISTILLATION.ratio == 1.5
    assert (goals.PIXEL_LOOP.ratio, goals.TORCHMETRICS.ratio, goals.LOOP.ratio) == (500, 2, 1.03)


# ---- every kind, in tiny sizes

FOUND = {
    "harness": 2,
    "loader": 4,
    "index": 2,
    "losses": 2,
    "metrics": 4,
    "inversion": 1,
    "masking": 3,
    "checkpoint": 1,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_rows_of_its_own(kind):
    found = list(suite.measure(kind, Bench(2), small=True))
    made = [each for each in found if isinstance(each, Row)]
    assert len(made) == FOUND[kind]
    assert {each.kind for each in found} == {kind}
    for each in made:
        assert 0 <= each.low <= each.ratio <= each.high < math.inf
        assert min(each.seconds, each.reference_seconds) >= 0
        assert each.ours
        assert each.reference
        assert each.goal is None  # of small sizes nothing is asked
    assert len({(each.what, each.ours, each.reference) for each in made}) == len(made)


def test_both_loops_come_to_the_same_weights():
    training = next(iter(suite.measure("harness", Bench(1), small=True)))
    assert isinstance(training, Row)
    assert training.note == "final weights of both are equal bit for bit"


def test_torchmetrics_is_left_out_with_a_line_where_it_is_not_installed(monkeypatch):
    from densecl.bench import metrics

    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    found = list(suite.measure("metrics", Bench(1), small=True))
    assert [type(each) for each in found] == [Row, Row, Missing]
    assert "torchmetrics is not installed" in found[-1].line


def test_both_reference_loops_count_what_the_confusion_matrix_counts():
    from densecl.bench.metrics import label_maps, list_loop, pixel_loop
    from densecl.metrics import ConfusionMatrix

    prediction, target = label_maps((2, 32, 32), 21, 0)
    assert (target == 255).any()
    matrix = ConfusionMatrix(21)
    matrix.update(prediction[0], target[0])
    assert torch.equal(pixel_loop(prediction[0], target[0], 21), matrix.matrix)
    assert torch.equal(list_loop(prediction[0], target[0], 21), matrix.matrix)


def test_the_bare_evaluation_counts_what_ours_counts(tmp_path):
    from densecl.bench.harness import SMALL_BACKBONE, bare_evaluation
    from densecl.runner.build import build_network, build_scenario, build_strategy
    from densecl.runner.evaluation import confusion
    from densecl.runner.plan import make_plan
    from densecl.streams.samples import TestSamples

    plan = make_plan("shapes15-5", "finetune", backbone=SMALL_BACKBONE, device="cpu", output=tmp_path)
    scenario, _ = build_scenario(plan)
    strategy = build_strategy(plan, scenario, build_network(plan.settings))
    strategy.network.grow(16)
    n, whole = len(scenario.class_names), scenario.test
    samples = TestSamples(whole.reader, whole.indices[:12], whole.table, whole.transform)
    ours = confusion(strategy, samples, n, 4)
    bare = bare_evaluation(strategy, samples, n, 4)
    assert ours.sum() > 0
    assert torch.equal(torch.from_numpy(ours), bare)


def test_the_textbook_forms_of_labels_and_bits_give_what_ours_give():
    from densecl.bench.loader import textbook_remap
    from densecl.bench.masking import packed_textbook
    from densecl.data.labels import lookup_table, remap
    from densecl.masking.bits import pack

    mask = torch.arange(256, dtype=torch.uint8).view(16, 16)
    mapping = {16: 16, 17: 3}
    assert torch.equal(textbook_remap(mask, {**mapping, 255: 255}), remap(mask, lookup_table(mapping, 0)))
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
    seconds = iter([9.0, 9.0, 9.0, 4.0, 2.0, 5.0])

    def watch(work):
        work()
        return Spent(next(seconds), 1.0)

    monkeypatch.setattr("densecl.bench.peak.stopwatch", lambda device: watch)
    assert matmul_peak(torch.device("cpu"), torch.float32, size=8, repeats=3) == 2 * 8**3 / 2.0


def test_the_first_epoch_is_not_counted_and_the_others_are_shared_out_over_their_iterations(monkeypatch):
    times = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr("densecl.bench.peak.time.perf_counter", lambda: next(times))
    monkeypatch.setattr("densecl.bench.peak.time.process_time", lambda: 1.0)
    listener = EpochClock()
    for epoch in range(3):
        listener.epoch_finished(epoch, 0, {})
    assert [each.seconds for each in listener.epochs(10)] == pytest.approx([0.1, 0.2])


def test_the_share_of_the_peak_can_be_measured_on_any_device():
    backbone = {"encoder": "mini", "encoder_widths": (4, 8, 8, 8), "weights": "none", "width": 8, "spatial": (8, 8)}
    backbone |= {"spatial_width": 8, "context_width": 8, "fusion": 1}
    (made,) = measure_share(Bench(2), backbone, size=32, batch=2, iterations=2, precision="fp32", matmul=64)
    assert isinstance(made, Row)
    assert made.sense is Sense.PEAK
    assert made.ratio == pytest.approx(made.reference_seconds / made.seconds, rel=1)
    assert 0 < made.ratio < 1
    assert made.repeats == 2
    assert "images a second" in made.note


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


# ---- table and command


def a_report(*found, load=0.1, **more):
    machine = {"densecl": "1", "torch": "2", "cpu": "CPU", "gpu": None, "cores": 2, "threads": 1, "load": load}
    made = [each for each in found if isinstance(each, Row)]
    return Report(machine, rows=made, missing=[each for each in found if isinstance(each, Missing)], **more)


def test_the_table_says_which_way_is_better_and_fits_80_columns():
    long = "a name of a form that is much longer than what there is room for in a narrow table"
    speed = replace(a_row(goal=Goal(ratio=2.5, memory=0.6), memory_ratio=0.3, note="half of it"), ours=long)
    text = render(a_report(speed, a_row(Sense.COST, 1.01, goal=Goal(ratio=1.03)), Missing("losses", "no compiler")))
    assert "losses: times as fast as the reference (more is better)" in text
    assert "losses: cost over the bare limit (less is better)" in text
    assert "[1] half of it" in text
    assert "NOT MET" in text
    assert "left out of losses: no compiler" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\x1b" in render(a_report(speed), colour=True)


def test_the_table_says_what_makes_its_figures_doubtful():
    assert "other programs were running (load 4.0)" in render(a_report(a_row(), load=4.0))
    assert "other programs" not in render(a_report(a_row(), load=None))
    assert "small sizes" in render(a_report(a_row(), small=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 µs"), (1.5e-6, "1.5 µs"), (0.9994e-3, "999 µs"), (0.0123, "12.3 ms"), (1, "1 s"), (1234.5, "1234 s")],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.parametrize(("ratio", "text"), [(4530.4, "4530"), (12.34, "12.3"), (1.006, "1.01"), (0.0421, "0.042")])
def test_ratios_have_the_digits_that_count(ratio, text):
    assert number(ratio) == text


def test_the_command_writes_json_with_the_machine(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bench", "losses", "--small", "--repeats", "2", "-o", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "measuring losses" in shown.err
    written = json.loads(path.read_text())
    assert written["schema"] == suite.SCHEMA
    assert written["small"] is True
    assert written["environment"].keys() >= {"cpu", "cores", "threads", "load", "torch", "device", "gpu", "python"}
    assert written["environment"]["threads"] == torch.get_num_threads()
    assert [line["kind"] for line in written["missing"]] == ["losses"]
    first = written["rows"][0]
    assert first.keys() == {
        "kind", "what", "ours", "reference", "sense", "seconds", "reference_seconds", "ratio", "low", "high",
        "processor_ratio", "repeats", "memory_ratio", "goal", "note", "more_is_better", "met",
    }  # fmt: skip
    assert first["sense"] == "times as fast as the reference"
    assert first["repeats"] == 2


def test_the_command_prints_a_table(capsys):
    assert main(["bench", "masking", "--small", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("densecl ")
    assert "masking: cost over the bare limit (less is better)" in out
    assert out.count("Of each pair ours is above") == 1


def test_json_on_the_screen_is_json_alone(capsys):
    assert main(["bench", "masking", "--small", "--repeats", "1", "--json"]) == 0
    assert {each["kind"] for each in json.loads(capsys.readouterr().out)["rows"]} == {"masking"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["los"], "did you mean 'losses'"),
        (["losses", "--repeats", "0"], "--repeats"),
        (["losses", "--device", "cuda:9"], "cuda:9"),
        (["index", "--data", "absent"], "absent"),
        (["losses", "-o", "."], "is a folder"),
    ],
)
def test_bad_words_are_refused_in_one_line(capsys, words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert named in shown.err


def test_all_goes_through_the_kinds_and_drops_nothing(monkeypatch, capsys):
    one = {kind: replace(a_row(), kind=kind) for kind in KINDS}
    monkeypatch.setattr(suite, "measure", lambda kind, bench, small: iter([one[kind], Missing(kind, "a line")]))
    heard = []
    report = suite.run(KINDS, Bench(1), finished=lambda kind, so_far: heard.append((kind, len(so_far.of(kind).rows))))
    assert [each.kind for each in report.rows] == list(KINDS)
    assert len(report.missing) == len(KINDS)
    assert heard == [(kind, 1) for kind in KINDS]
    assert main(["bench", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == len(KINDS)
