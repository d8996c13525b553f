"""`densecl probe`: what old classes lost, split into features and head, from kept weights."""

import json
import shutil

import numpy as np
import pytest

from densecl.cli import main
from densecl.errors import RecordError
from densecl.finished.evaluate import plan_of
from densecl.finished.probe import _training_images, fit, probe
from densecl.records.probed import counts_of, read_probed
from densecl.records.record import read_record
from densecl.runner.build import build_scenario, restored
from densecl.runner.evaluation import see
from densecl.tables.anatomy import by_group, losses
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = ("--set", "training.iterations=1")


@pytest.fixture(scope="module")
def pair(finished, tmp_path_factory):
    """Folders of a run of three steps and of a joint run of the same stream. Change nothing in them."""
    output = tmp_path_factory.mktemp("pair")
    for strategy in ("finetune", "joint"):
        words = run_words(finished / "data", output, "--quiet", *SHORT, benchmark="voc10-5", strategy=strategy)
        assert main(words) == 0
    return tuple(next((output / "voc10-5" / name).rglob("result.json")).parent for name in ("finetune", "joint"))


def test_the_head_is_the_ridge_solution_on_features_of_all_classes(run_copy):
    plan, record = plan_of(run_copy)
    scenario, _ = build_scenario(plan)
    loop = restored(plan, scenario, run_copy, 1, record.hash)
    samples = _training_images(scenario)
    assert len(samples) == 10
    rows, targets = [], []
    for image, mask in ((sample.image, sample.target) for sample in samples):
        decoded = see(loop, loop.stream.tasks[0], image[None], mask[None])[0].decoded[0].double().numpy()
        h, w = decoded.shape[1:]
        stride = mask.shape[0] // h
        for i in range(h):
            for j in range(w):
                label = int(mask[i * stride + stride // 2, j * stride + stride // 2])
                if label != 255:
                    rows.append([*decoded[:, i, j], 1.0])
                    targets.append(np.eye(21)[label])
    rows, targets = np.array(rows), np.array(targets)
    assert {int(k) for k in targets.argmax(1)} > {0, 17}  # classes of both steps, whatever a step labels
    padded = np.concatenate([rows, np.sqrt(2.0) * np.eye(rows.shape[1])])
    wanted = np.linalg.lstsq(padded, np.concatenate([targets, np.zeros((rows.shape[1], 21))]), rcond=None)[0]
    for batch in (3, 10):  # sums of several batches are those of one
        head = fit(loop, samples, 21, gamma=2.0, batch=batch)
        np.testing.assert_allclose(head.numpy(), wanted, rtol=1e-4, atol=1e-6)  # features are float32


def test_what_is_lost_is_the_forgetting_of_the_record(run_copy):
    record, probed = probe(run_copy)
    assert len(probed.probes) == 2
    for k, matrix in enumerate(probed.unused):  # pixels that both see right are in both matrices
        both, seen = np.diagonal(matrix), np.diagonal(probed.probes[k])
        assert (np.sum(matrix, 1) == seen).all()
        assert (both <= np.diagonal(record.steps[k].evaluations[0].confusion)).all()
        confusion = np.array(record.steps[k].evaluations[0].confusion)
        assert (np.array(probed.taken[k]) <= confusion.sum(0) - np.diagonal(confusion)).all()
        assert sum(probed.taken[k]) > 0
    group = by_group(record, losses(record, probed, 1), 1)["all"]
    metrics = record.steps[1].evaluations[0].metrics
    known = losses(record, probed, 1)
    first = record.steps[0].evaluations[0].metrics["iou"]
    for label, one in known.items():
        assert one.learnt == pytest.approx(first[label])
        assert one.now == pytest.approx(metrics["iou"][label])
        assert one.split.lost == pytest.approx(one.learnt - one.now, abs=1e-12)
        assert one.split.representation == pytest.approx(one.probe_then - one.probe_now, abs=1e-12)
    absent = [label for label in range(1, 16) if label not in known]
    assert all(not sum(record.steps[1].evaluations[0].confusion[label]) for label in absent)
    assert group.split.lost == pytest.approx(np.mean([first[k] - metrics["iou"][k] for k in known]))


def test_a_table_has_the_means_of_the_seeds_that_were_probed(run_copy, capsys):
    words = ["table", str(run_copy.parents[3]), "--anatomy", "--format", "csv"]
    assert main(words) == 2
    assert "was probed" in capsys.readouterr().err
    record, probed = probe(run_copy)
    again = run_copy.with_name("another")
    again.mkdir()
    other = record.model_copy(update={"seed": 1, "hash": "another"})
    other.write(again / "result.json")  # probed with another outcome: what the head said is the probe's too
    probed.model_copy(update={"run": "another", "probes": probed.probes[:1] * 2}).write(again)
    early = run_copy.with_name("early")  # probed before its end: it says nothing of the last step
    early.mkdir()
    record.model_copy(update={"seed": 2, "hash": "early"}).write(early / "result.json")
    first = {key: getattr(probed, key)[:1] for key in ("probes", "unused", "taken")}
    probed.model_copy(update={"run": "early", "counts": counts_of(record, 1), **first}).write(early)
    assert main(words) == 0
    heading, row = (line.split(",") for line in capsys.readouterr().out.splitlines())
    cells = dict(zip(heading, row, strict=True))
    splits = [
        by_group(run, losses(run, read_probed(folder, run), 1), 1)["all"].split
        for run, folder in ((record, run_copy), (other, again))
    ]
    assert cells["seeds"] == "2"
    assert float(cells["lost"]) == pytest.approx(100 * splits[0].lost, abs=0.06)
    assert float(cells["features"]) == pytest.approx(100 * splits[0].representation / 2, abs=0.06)
    assert splits[1].representation == 0


def test_equal_networks_lose_no_features(run_copy):
    """Weights of step 1 with the features of step 0: all that is lost is the head's."""
    plan, record = plan_of(run_copy)
    scenario, _ = build_scenario(plan)
    first, last = (restored(plan, scenario, run_copy, step, record.hash) for step in (0, 1))
    last.network.backbone.load_state_dict(first.network.backbone.state_dict())
    from densecl.runner.checkpoint import save_weights

    save_weights(last.network, plan.settings, run_copy, 1, record.hash)
    record, probed = probe(run_copy)
    assert probed.probes[0] == probed.probes[1]
    for one in losses(record, probed, 1).values():
        assert one.split.representation == 0


def test_the_command_writes_the_probe_and_touches_nothing_else(run_copy, capsys):
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    assert main(["probe", str(run_copy)]) == 0
    shown = capsys.readouterr()
    assert "features" in shown.out
    assert "to background" in shown.out
    after = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    written = after.pop(run_copy / "probe.json")
    assert after == before
    assert main(["probe", str(run_copy), "--json"]) == 0
    assert (run_copy / "probe.json").read_bytes() == written  # the same bits again
    assert json.loads(capsys.readouterr().out) == json.loads(written)


def test_classes_of_later_steps_can_be_compared_with_joint(pair, tmp_path, capsys):
    run, upper = (shutil.copytree(folder, tmp_path / folder.parent.parent.name) for folder in pair)
    alone = probe(run)[1]
    record, probed = probe(run, joint=upper)
    assert probed.probes == alone.probes
    joint = read_record(upper / "result.json").steps[0].evaluations[0]
    assert probed.joint.head == joint.confusion
    ours, theirs = losses(record, alone, 2), losses(record, probed, 2)
    added = [label for label in ours if label > 10]
    assert added
    assert all(theirs[label].learnt == pytest.approx(joint.metrics["iou"][label]) for label in added)
    assert all(theirs[label] == ours[label] for label in ours if label <= 10)
    assert set(by_group(record, ours, 2)) == {"base", "added", "all"}
    capsys.readouterr()
    assert main(["probe", str(upper)]) == 0
    assert "no class is older" in capsys.readouterr().out
    refused(capsys, ["probe", run, "--joint", run], "no finished run of joint")


def test_it_looks_at_the_images_that_the_record_counts(finished, tmp_path):
    words = run_words(
        finished / "data", tmp_path, "--quiet", *SHORT, "--set", "evaluation.images=seen", "--set", "stream.split=2-18"
    )
    assert main(words) == 0
    record, probed = probe(next(tmp_path.rglob("result.json")).parent)
    pixels = [np.sum(step.evaluations[0].confusion, 1).tolist() for step in record.steps]
    assert [np.sum(matrix, 1).tolist() for matrix in probed.probes] == pixels
    assert sum(pixels[0]) < sum(pixels[1])


def test_joint_of_another_network_is_refused(pair, tmp_path, capsys):
    run, upper = (shutil.copytree(folder, tmp_path / folder.parent.parent.name) for folder in pair)
    content = json.loads((upper / "result.json").read_text())
    content["settings"]["backbone_values"]["fusion"] = 3
    (upper / "result.json").write_text(json.dumps(content))
    refused(capsys, ["probe", run, "--joint", upper], upper, "another network")
    content["settings"]["backbone_values"]["fusion"] = 1
    content["settings"]["evaluation"]["size"] = 16
    (upper / "result.json").write_text(json.dumps(content))
    refused(capsys, ["probe", run, "--joint", upper], upper, "scored on other images")
    assert not (run / "probe.json").exists()


def test_a_run_without_weights_is_refused_by_step(run_copy, capsys):
    (run_copy / "weights" / "step1.safetensors").unlink()
    refused(capsys, ["probe", run_copy], run_copy, "no weights of step 1", "--fresh")
    shutil.rmtree(run_copy / "weights")
    refused(capsys, ["probe", run_copy], "no weights of step 0, 1")
    assert not (run_copy / "probe.json").exists()


def test_a_gamma_that_is_not_above_0_is_refused(run_copy, capsys):
    refused(capsys, ["probe", run_copy, "--gamma", "0"], "--gamma 0")


def test_a_method_that_is_told_the_step_is_refused(run_copy, capsys):
    content = json.loads((run_copy / "result.json").read_text())
    content["settings"] |= {"strategy": "scratch", "strategy_values": {}}
    (run_copy / "result.json").write_text(json.dumps(content | {"strategy": "scratch"}))
    refused(capsys, ["probe", run_copy], "a head for each step")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"run": "00000000"}, "another run"),
        ({"counts": "00000000"}, "before it was trained again"),
        ({"probes": [[[1]], [[1]]]}, "other than 21 classes"),
        ({"taken": [[1], [1]]}, "other than 21 classes"),
        ({"taken": []}, "another run"),
        ({"gamma": "1"}, "gamma"),
        ({"kind": "masks"}, "no probe"),
        ({"further": 1}, "further"),
    ],
)
def test_a_probe_that_is_not_of_the_run_is_refused(run_copy, change, named):
    record, _ = probe(run_copy)
    path = run_copy / "probe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError) as caught:
        read_probed(run_copy, record)
    assert named in str(caught.value)
    path.write_text("{")
    with pytest.raises(RecordError, match="not JSON"):
        read_probed(run_copy, record)
    path.unlink()
    assert read_probed(run_copy, record) is None
