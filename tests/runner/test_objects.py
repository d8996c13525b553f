"""Runs by objects: classes, instances, modules and scenarios; and the benchmark for a loop of one's own."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

import densecl
from densecl.errors import DenseCLError, SettingError, UnknownNameError
from densecl.models.backbones.unet import UNet
from densecl.records.record import plain
from densecl.runner.build import build_loop, build_network, build_scenario, restored
from densecl.runner.plan import make_plan
from densecl.settings.catalogue import load_class
from densecl.strategies.mib import MiB
from densecl.strategies.replay import Replay
from densecl.streams.stream import class_stream
from tiny_runs import BACKBONE, SETTINGS

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = """from densecl import Strategy

class Mine(Strategy):
    weight: float = 2.0

    def regulariser(self, output, batch, teacher_output):
        return self.weight * output.logits.square().mean()
"""


def plan(voc, strategy="mib", **options):
    return make_plan("voc15-5", strategy, data=voc, device="cpu", **{"assignments": SETTINGS, **options})


def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())


def test_classes_and_instances_are_what_their_names_are(voc, tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    name = f"{tmp_path}/mine.py:Mine"
    mine = load_class(name)
    pairs = [
        ("mib", MiB, {}),
        ("mib(distillation=5)", MiB(distillation=5.0), {}),
        ("mib+replay(memory=7)", MiB, {"plugins": [Replay(memory=7)]}),
        ("mib+replay", "mib", {"plugins": [Replay]}),
        ("mib+replay", "mib", {"plugins": ["replay"]}),
        (name, mine, {}),
        (f"{name}(weight=3)", mine(weight=3.0), {}),
    ]
    for text, strategy, options in pairs:
        named, given = plan(voc, text), plan(voc, strategy, **options)
        assert (named.hash, named.method.name) == (given.hash, given.method.name)
    assert plan(voc, backbone="unet").hash == plan(voc, backbone=UNet).hash
    assert str(tmp_path) not in plan(voc, mine).folder.as_posix()


def test_classes_without_a_file_differ_by_what_they_do(voc):
    def made(number: int) -> type[densecl.Strategy]:
        names: dict[str, object] = {"__name__": "notebook"}
        exec(FILE.replace("self.weight *", f"{number} *"), names)
        return names["Mine"]  # type: ignore[return-value]

    hashes = [plan(voc, made(number)).hash for number in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("strategy", "options", "words"),
    [
        (UNet, {}, "neither a strategy nor a plugin"),
        (Replay, {}, r"names no strategy, only plugins"),
        ("mib", {"plugins": [MiB]}, "names two strategies"),
        ("mib", {"plugins": [Replay, Replay]}, "names replay twice"),
        ("mib", {"backbone": MiB}, "MiB is no backbone"),
        ("mib", {"backbone": nn.Flatten()}, r"Flatten gives \(1, 12288\) for an image"),
        ("mib", {"backbone": nn.Conv2d(4, 2, 1)}, "Conv2d fails on an image of 64x64"),
    ],
)
def test_objects_that_are_something_else_are_refused(voc, strategy, options, words):
    with pytest.raises(DenseCLError, match=words):
        plan(voc, strategy, **options)


def test_a_stream_without_data_is_no_benchmark(voc):
    with pytest.raises(SettingError, match="a Stream is no benchmark that can be run"):
        densecl.run(class_stream("own", [[1], [2]], ["background", "a", "b"]), "mib")  # type: ignore[arg-type]


def test_a_copy_of_a_module_is_trained_and_its_weights_are_part_of_the_run(voc, tmp_path):
    module = body()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    options = {"data": voc, "output": tmp_path / "out", "assignments": SETTINGS}
    record = densecl.run("voc15-5", "finetune", backbone=module, **options)
    assert (record.status, record.backbone) == ("finished", "Sequential")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert densecl.run("voc15-5", "finetune", backbone=body(), **options) == record
    with torch.no_grad():
        module[0].weight.add_(1)
    assert plan(voc, "finetune", backbone=module).hash != record.hash
    assert plan(voc, "finetune", backbone=nn.Sequential(module[0], nn.GELU())).hash != plan(voc, backbone=module).hash


def test_a_loop_of_ones_own_sees_the_batches_and_scores_of_a_run(voc, tmp_path):
    benchmark = densecl.benchmark("voc15-5", data=voc, assignments=SETTINGS)
    made = plan(voc, "finetune", backbone=BACKBONE, output=tmp_path / "out")
    scenario, _ = build_scenario(made)
    loop = build_loop(made, scenario, build_network(made.settings))
    for experience, step in zip(scenario.experiences, benchmark.train_stream, strict=True):
        loop.begin(experience)
        assert (step.epochs, step.iterations) == (loop.epochs, loop.planned)
        assert (step.n_outputs, step.n_old) == (loop.network.n_outputs, loop.n_old)
        for epoch in range(step.epochs):
            loop.epoch = epoch
            loop.begin_epoch()
            theirs = [loop.prepared(batch, loop.task) for batch in loop.loader]
            ours = list(step.loader(epoch))
            assert len(ours) == len(theirs)
            loop.iterations += len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                assert torch.equal(a.image, b.image)
                assert torch.equal(a.target, b.target)
    record = densecl.run(
        "voc15-5", "finetune", data=voc, backbone=BACKBONE, output=tmp_path / "out", assignments=SETTINGS
    )
    scores: list[dict] = []
    for step in record.steps:
        network = restored(made, scenario, made.folder, step.step, record.hash).network.eval()
        scores.append(benchmark.evaluate(lambda image, network=network: network(image).logits, step.step, scores))
        assert plain(scores[-1]) == step.evaluations[0].metrics
    options = {"backbone": BACKBONE, "output": tmp_path / "out", "assignments": SETTINGS}
    given = densecl.run(benchmark.scenario, "finetune", **options)  # its data, with the settings of the recipe
    assert (given.benchmark, given.planned_steps) == ("own", record.planned_steps)
    assert [step.evaluations[0].confusion for step in given.steps] == [
        step.evaluations[0].confusion for step in record.steps
    ]
    with pytest.raises(SettingError, match="joint and the scenario do not go together"):
        densecl.run(benchmark.scenario, "joint", **options)
    with pytest.raises(SettingError, match="is a sequence of tasks"):
        densecl.benchmark("shapes-3tasks")


def test_records_are_a_sequence_with_a_row_for_each_step(run_copy, monkeypatch):
    records = densecl.records(run_copy.parents[3])
    (record,) = records
    assert (len(records), records[0], repr(records[:1])) == (1, record, "Records(1 runs)")
    first, second = records.rows()
    assert (first["step"], second["step"], first["strategy"]) == (0, 1, "mib")
    assert second["miou.all"] == record.steps[1].evaluations[0].metrics["miou"]["all"]
    assert "<caption>voc15-5</caption>" in records._repr_html_()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DenseCLError, match="pip install pandas"):
        records.to_dataframe()
    fake = ModuleType("pandas")
    fake.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", fake)
    assert records.to_dataframe() == records.rows()
    tables = densecl.table(run_copy.parents[3])
    means = {row["column"]: row["mean"] for row in tables.to_dataframe()}
    assert means["all"] == pytest.approx(second["miou.all"])
    with pytest.raises(UnknownNameError, match="nothing of it was run"):
        densecl.records(run_copy.parents[3], benchmark=["voc15-5s"])


def test_html_of_a_table_is_literal_and_balanced():
    from densecl.tables.forms.html import write
    from densecl.tables.table import rows
    from table_records import make

    text = write(rows([make(strategy="a<b>&c")]))
    assert "a&lt;b&gt;&amp;c" in text
    tags = re.findall(r"<(/?)(\w+)", text)
    for tag in {name for _, name in tags} - {"br"}:
        assert tags.count(("", tag)) == tags.count(("/", tag)), tag


def test_a_notebook_sees_one_line_that_is_drawn_anew(voc, tmp_path, monkeypatch, capsys):
    drawn: list[str] = []
    handle = SimpleNamespace(update=lambda html: drawn.append(html))
    display = ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda html, **_options: drawn.append(html) or handle  # type: ignore[attr-defined]
    kernel = ModuleType("IPython")
    kernel.get_ipython = lambda: SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    options = {"data": voc, "backbone": BACKBONE, "assignments": SETTINGS, "output": Path(tmp_path / "out")}
    densecl.run("voc15-5", "finetune", quiet=False, **options)
    assert "step 1 (2 of 2): 4 iterations" in capsys.readouterr().out
    assert 'value="0.000"' in drawn[0]
    assert 'value="1.000"' in drawn[-1]
