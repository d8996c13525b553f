"""Task-incremental streams: what each step trains on and is judged by, against counts made by hand."""

import json

import numpy as np
import pytest
import torch

from densecl.check.tiny import IMAGES, TinyImages, tiny_loop, tiny_scenario
from densecl.cli import main
from densecl.errors import SettingError
from densecl.metrics.iou import class_metrics
from densecl.records.record import read_record
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.streams import protocol
from densecl.streams.scenario import class_incremental, renumbered
from tiny_runs import run_words

STEPS = ((3, 1), (4,), (2,))  # the order of arrival is not that of the ids


def stream(**options):
    train, test = TinyImages(IMAGES, seed=1), TinyImages(8, seed=2)
    scenario = class_incremental(
        train, test, STEPS, by_task=True, presence=train.presence(), test_presence=test.presence(), **options
    )
    return scenario, train, test


def test_renumbered_keeps_background_and_void_and_counts_the_steps_own_labels():
    table = torch.full((256,), 255, dtype=torch.uint8)
    table[:6] = torch.tensor([0, 4, 2, 5, 1, 3])
    assert renumbered(table, (4, 5), others=0)[:6].tolist() == [0, 1, 0, 2, 0, 0]
    assert renumbered(table, (4, 5), others=255)[:6].tolist() == [0, 1, 255, 2, 255, 255]
    assert renumbered(table, (4, 5), others=0)[255] == 255


def test_training_images_are_those_of_the_stream_and_labels_count_from_one():
    scenario, train, _ = stream()
    plain = class_incremental(train, TinyImages(8, seed=2), STEPS, presence=train.presence())
    for step, experience in enumerate(scenario.experiences):
        chosen = experience.images.indices
        assert (chosen == plain.train_stream[step].images.indices).all()
        for position, index in enumerate(chosen):
            wanted = np.zeros_like(train.masks[index])
            for number, original in enumerate(STEPS[step], start=1):
                wanted[train.masks[index] == original] = number
            wanted[train.masks[index] == 255] = 255
            _, target = experience.dataset[position][:2]
            assert (np.asarray(target) == wanted).all()
            held = set(np.unique(wanted)) - {0, 255}
            assert set(np.flatnonzero(experience.presence[position])) - {0, 255} == held


def test_each_image_is_judged_once_for_every_step_it_holds_classes_of():
    scenario, _, test = stream()
    for step, samples in enumerate(scenario.tests):
        holding = [i for i, mask in enumerate(test.masks) if np.isin(mask, STEPS[step]).any()]
        assert samples.indices.tolist() == holding
        for position, index in enumerate(holding):
            wanted = np.where(test.masks[index] == 0, 0, 255)
            for number, original in enumerate(STEPS[step], start=1):
                wanted[test.masks[index] == original] = number
            assert (samples[position].target.numpy() == wanted).all()


def test_scores_are_over_the_labels_of_the_stream():
    """A predictor that is always right for its own step's classes fills the diagonal with the pixels that count."""
    scenario, _, test = stream()
    loop = tiny_loop(parse_method("classifier"), scenario)
    for experience in scenario.experiences:
        loop.enter(experience)
    seen = iter([samples[i].target for samples in scenario.tests for i in range(len(samples))])
    # of void, anything
    loop.strategy.predict = lambda output: torch.stack([next(seen) for _ in output.logits]).long() % 255
    matrix = np.array(evaluate(loop, 2, 4)[0].confusion)
    number = protocol.arrival(STEPS)
    wanted = np.zeros(5, dtype=int)
    for step in STEPS:
        for mask in test.masks:
            if np.isin(mask, step).any():
                wanted[0] += (mask == 0).sum()
                for original in step:
                    wanted[number[original]] += (mask == original).sum()
    assert (matrix == np.diag(wanted)).all()
    told = {"has_background": scenario.stream.has_background, "labels": scenario.stream.labels}
    assert class_metrics(matrix, scenario.stream.groups, 2, **told)["miou"]["all"] == 1
    assert loop.network.task_heads.active == "step2"


def test_held_out_training_images_take_the_place_of_the_test_images():
    scenario, train, _ = stream(validation=0.5)
    held = set(range(IMAGES)) - {int(i) for experience in scenario.experiences for i in experience.images.indices}
    for step, samples in enumerate(scenario.tests):
        assert set(samples.indices.tolist()) <= held
        assert all(np.isin(train.masks[i], STEPS[step]).any() for i in samples.indices)


def test_a_step_without_test_images_is_refused():
    train, test = TinyImages(IMAGES, seed=1), TinyImages(8, seed=2)
    with pytest.raises(SettingError, match="no test image holds a class of step 1"):
        class_incremental(
            train,
            test,
            STEPS,
            by_task=True,
            presence=train.presence(),
            test_presence=np.where(np.arange(256) == 4, False, test.presence()),
        )


def test_only_methods_that_are_told_the_step_have_heads_by_step():
    assert parse_method("piggyback").told
    assert not parse_method("mib").told
    assert not tiny_scenario().stream.by_task
    assert [task.name for task in tiny_scenario(by_task=True).stream.tasks] == ["step0", "step1", "step2"]


@pytest.mark.parametrize(
    ("benchmark", "strategy", "words"),
    [
        ("cityscapes-domain11-5", "piggyback", "piggyback learns tasks, and all steps of"),
        ("shapes15-5", "piggyback+deepinversion", "deepinversion cannot be joined to piggyback"),
        ("shapes-3tasks", "mib", "mib"),
    ],
)
def test_what_cannot_be_told_the_step_is_refused_before_data_is_read(benchmark, strategy, words):
    with pytest.raises(SettingError, match=words):
        make_plan(benchmark, strategy)


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_is_told_the_step_is_recorded_scored_again_and_looked_into(voc, tmp_path, capsys):
    words = run_words(voc, tmp_path, "--quiet", strategy="piggyback(bn=trained)")
    assert main(words) == 0
    (path,) = tmp_path.rglob("result.json")
    found = read_record(path)
    assert (found.status, found.oracle, found.tasks) == ("finished", "task", [])
    last = found.steps[-1].evaluations[0]
    assert len(found.steps[-1].evaluations) == 1
    assert {"all", "base", "added"} <= set(last.metrics["miou"])
    # masks keep what was learnt: what every step's own classes are taken for never changes again
    for step, group in enumerate(found.planned_steps):
        rows = [np.array(one.evaluations[0].confusion)[group] for one in found.steps[step:]]
        assert all((row == rows[0]).all() for row in rows)
    capsys.readouterr()
    assert main(["evaluate", str(path.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == last.model_dump(mode="json")["metrics"]
    assert main(["inspect", str(path.parent), "--masks"]) == 0
    assert "step1" in capsys.readouterr().out
    assert main(["table", str(tmp_path)]) == 0
    assert "told the task" in capsys.readouterr().out
