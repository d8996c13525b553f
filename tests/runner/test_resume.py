import json
import os
import random
import signal
import sys

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.cli import main
from densecl.errors import RecordError, RunError
from densecl.records.record import find_records, read_record
from densecl.runner.checkpoint import Checkpoints, pack, unpack
from densecl.runner.methods import parse_method
from densecl.settings.recipe import RunSettings
from kill_runs import command, finished, kill_once, same, whole_run
from tiny_runs import run_words, tiny_voc

SETTINGS = RunSettings(benchmark="tiny", strategy="finetune", backbone="bisenet", training=TRAINING)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """(data, the whole run's record and weights, its seconds, its folder)."""
    import densecl.runner.run  # noqa: F401 (once, here: the forked runs then need not)

    folder = tmp_path_factory.mktemp("whole")
    data = tiny_voc(folder / "data").parents[1]
    seconds = whole_run(data, folder / "run")
    return data, finished(folder / "run"), seconds, folder / "run"


@pytest.mark.parametrize("number", range(5))
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits_and_trains_less(reference, tmp_path, number):
    data, whole, seconds, _ = reference
    moment = random.Random(number).uniform(0.1 + 0.15 * number, 0.25 + 0.15 * number) * seconds
    outcome = kill_once(data, tmp_path / "run", whole, moment, while_writing=bool(number % 2))
    assert outcome.equal
    if outcome.resumed != "from the start":
        assert outcome.trained < sum(step["iterations"] for step in whole[0]["steps"])


def test_a_first_step_that_is_shared_gives_the_same_bits_and_is_trained_once(tmp_path, capsys):
    data = tiny_voc(tmp_path / "data").parents[1]
    for strategy in ("finetune", "mib", "lwf+replay"):
        assert main([*run_words(data, tmp_path / "shared", strategy=strategy)]) == 0
        assert main([*run_words(data, tmp_path / "own", strategy=strategy), "--no-share"]) == 0
    trained = []
    for path in sorted((tmp_path / "shared").rglob("result.json")):
        (other,) = (tmp_path / "own").rglob(f"{path.parent.name}/result.json")
        a, b = finished(path.parent), finished(other.parent)
        trained.append(a[0]["steps"][0]["iterations"])
        assert [s["evaluations"] for s in a[0]["steps"]] == [s["evaluations"] for s in b[0]["steps"]]
        assert same((b[0], a[1]), b)
    assert sorted(trained)[:2] == [0, 0]
    assert sorted(trained)[2] > 0
    assert "loaded" in capsys.readouterr().err


def test_a_loaded_first_step_keeps_as_much_as_a_trained_one(tmp_path):
    data = tiny_voc(tmp_path / "data").parents[1]
    frozen = ["--set", "training.freeze=encoder"]
    for output, strategy in (("shared", "finetune"), ("shared", "mib+ewc"), ("own", "mib+ewc")):
        assert main([*run_words(data, tmp_path / output, *frozen, strategy=strategy), "--quiet"]) == 0
    paths = [next((tmp_path / output).rglob("mib+ewc/*/*/result.json")) for output in ("shared", "own")]
    loaded, trained = (json.loads(path.read_text())["steps"] for path in paths)
    assert loaded[0]["iterations"] == 0 < trained[0]["iterations"]
    assert [step["stored_bytes"] for step in loaded] == [step["stored_bytes"] for step in trained]


def test_200_corruptions_of_a_record_are_each_refused_by_name_or_harmless(reference, tmp_path):
    (good,) = reference[3].rglob("result.json")
    text, rng = good.read_text(), random.Random(1)
    path = tmp_path / "result.json"
    for _ in range(200):
        at = rng.randrange(len(text))
        bad = rng.choice([text[:at], text[:at] + rng.choice('x{]"9') + text[at + 1 :], text[:at] + text[at + 20 :]])
        path.write_text(bad)
        records, faults = find_records(tmp_path)
        assert len(records) + len(faults) == 1
        for fault in faults:
            with pytest.raises(RecordError, match=r"result\.json"):
                read_record(path)
            assert "\n" not in str(fault)


def test_a_broken_record_does_not_stop_the_run_from_starting_over(tmp_path, capsys):
    data = tiny_voc(tmp_path / "data").parents[1]
    words = run_words(data, tmp_path / "out")
    assert main(words) == 0
    (path,) = (tmp_path / "out").rglob("result.json")
    before = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    assert main(words) == 0
    assert [s["evaluations"] for s in json.loads(path.read_text())["steps"]] == [
        s["evaluations"] for s in before["steps"]
    ]
    assert "result.json" in capsys.readouterr().err


def test_a_changed_weight_file_is_refused_and_the_step_before_is_used(tmp_path, capsys):
    data = tiny_voc(tmp_path / "data").parents[1]
    words = run_words(data, tmp_path / "out", benchmark="voc15-5s")
    assert main(words) == 0
    whole = finished(tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("result.json")
    record = json.loads(path.read_text())
    record["status"], record["steps"] = "interrupted", record["steps"][:4]
    del record["digest"]  # else the run would be marked as one that goes on from a changed record
    path.write_text(json.dumps(record))
    weights = path.parent / "weights" / "step3.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert main(words) == 0
    assert "step3.safetensors" in capsys.readouterr().err
    assert same(finished(tmp_path / "out"), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(reference, tmp_path, number):
    from kill_runs import _wait_for, start

    data, whole, _, _ = reference
    log = tmp_path / "log"
    process = start(command(data, tmp_path / "run"), log)
    _wait_for(tmp_path / "run", process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130, log.read_text()
    assert "the same command goes on" in log.read_text()
    (path,) = (tmp_path / "run").rglob("result.json")
    assert json.loads(path.read_text())["status"] == "interrupted"
    process = start(command(data, tmp_path / "run"), log)
    process.join()
    assert same(finished(tmp_path / "run"), whole)


def test_an_image_that_vanishes_is_named_and_nothing_finished_is_lost(tmp_path, capsys):
    data = tiny_voc(tmp_path / "data").parents[1]
    words = run_words(data, tmp_path / "out", "--workers", "1", benchmark="voc15-5s")  # not held in memory
    image = tmp_path / "data" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "train_9.jpg"
    kept = image.read_bytes()
    from densecl.strategies.mib import MiB

    def vanish(self, experience):
        if experience.step == 3:
            image.unlink(missing_ok=True)

    original = MiB.after_step
    MiB.after_step = vanish
    try:
        assert main(words) == 2
    finally:
        MiB.after_step = original
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("densecl: ")
    assert "train_9.jpg" in error
    assert "Traceback" not in error
    (path,) = (tmp_path / "out").rglob("result.json")
    assert json.loads(path.read_text())["status"] == "failed"
    image.write_bytes(kept)
    assert main(words) == 0


def test_a_worker_that_dies_is_said_in_one_line():
    from densecl.training.failures import explained

    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune"), scenario)
    loop.workers = 1
    read = type(scenario.training.readers[0]).read
    here = os.getpid()

    def die(self, index):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    type(scenario.training.readers[0]).read = die
    try:
        with pytest.raises(RuntimeError) as caught:
            loop.train([scenario.experiences[0]])
    finally:
        type(scenario.training.readers[0]).read = read
    message = str(explained(caught.value, SETTINGS))
    assert "loads data died" in message
    assert "\n" not in message


def test_memory_that_runs_out_names_batch_crop_and_accumulation():
    from densecl.training.failures import explained

    message = str(explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), SETTINGS))
    assert "batch 6" in message
    assert "training.accumulation=2" in message


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_gives_the_gradient_of_the_whole_batch(parts):
    states = []
    for accumulation in (1, parts):
        scenario = tiny_scenario()
        changes = {"accumulation": accumulation, "optimizer": "sgd", "lr": 0.1, "iterations": 3, "class_weights": 0.5}
        network = tiny_network("unet", width=4, depth=2, norm="instance")
        loop = tiny_loop(parse_method("mib"), scenario, network, TRAINING.model_copy(update=changes))
        for experience in scenario.experiences[:2]:
            loop.train([experience])
        states.append(network.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or sys.platform != "linux", reason="needs to mount")
def test_a_full_disk_is_said_in_one_line_and_keeps_what_was_there(tmp_path, capsys):
    import subprocess

    data = tiny_voc(tmp_path / "data").parents[1]
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        words = run_words(data, small, "--no-share", benchmark="voc15-5s")
        filler = small / "filler"
        from densecl.strategies.mib import MiB

        def fill(self, experience):
            if experience.step == 2:
                with filler.open("wb") as file:
                    while True:
                        try:
                            file.write(b"\0" * 65536)
                            file.flush()
                        except OSError:
                            return

        original = MiB.after_step
        MiB.after_step = fill
        try:
            assert main(words) == 2
        finally:
            MiB.after_step = original
        error = capsys.readouterr().err
        assert "no space left" in error
        assert not list(small.rglob(".*.tmp"))
        filler.unlink()
        assert main(words) == 0
        record = json.loads(next(small.rglob("result.json")).read_text())
        assert len(record["steps"]) == 6
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_what_a_method_froze_stays_frozen_after_a_kill(tmp_path):
    from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
    from densecl.runner.methods import parse_method

    (tmp_path / "frozen.py").write_text(
        "from densecl import Strategy\n"
        "class Frozen(Strategy):\n"
        "    def before_step(self, experience):\n"
        "        self.network.backbone.requires_grad_(experience.step == 0)\n"
    )
    method = parse_method(f"{tmp_path}/frozen.py:Frozen")

    def strategy():
        return tiny_loop(method, tiny_scenario(), tiny_network())

    whole, checkpoints, states = strategy(), Checkpoints(tmp_path, "run"), []
    for experience in list(whole.scenario.experiences)[:2]:
        if experience.step == 1:
            before = {key: value.clone() for key, value in whole.network.state_dict().items()}
            whole.after_epoch = lambda: states.append(pack({"run": "run", **whole.state()}))
        whole.train([experience])
    (tmp_path / "state").write_bytes(states[0])
    again = strategy()
    again.enter(again.scenario.experiences[0])
    again.network.load_state_dict(before)
    again.resume(unpack(tmp_path / "state", "run"))
    again.train([again.scenario.experiences[1]])
    checkpoints.close()
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.network.state_dict().items())
    assert not any(p.requires_grad for p in again.network.backbone.parameters())


def test_a_first_step_is_not_shared_with_a_method_of_ones_own_that_differs(tmp_path):
    data = tiny_voc(tmp_path / "data").parents[1]
    (tmp_path / "wrong.py").write_text(
        "from densecl import Strategy\n"
        "class Wrong(Strategy):\n"
        "    first_step = 'shared'\n"
        "    def pixel_loss(self, logits, batch):\n"
        "        return 3 * super().pixel_loss(logits, batch)\n"
    )
    assert main(run_words(data, tmp_path / "out", strategy=f"{tmp_path}/wrong.py:Wrong")) == 0
    assert main(run_words(data, tmp_path / "out", strategy="finetune")) == 0
    records = {found.record.strategy: found.record for found in find_records(tmp_path / "out")[0]}
    assert not records["finetune"].steps[0].shared


def test_other_pixels_under_the_same_names_are_another_run(tmp_path):
    from PIL import Image

    from densecl.runner.plan import make_plan

    tree = tiny_voc(tmp_path / "data")
    hashes = []
    for _ in range(2):
        hashes.append(make_plan("voc15-5", "mib", data=tree, device="cpu").hash)
        Image.new("RGB", (32, 32), "red").save(tree / "JPEGImages" / "train_0.jpg")
    assert hashes[0] != hashes[1]


def test_a_complete_record_that_says_running_becomes_finished(tmp_path):
    data = tiny_voc(tmp_path / "data").parents[1]
    words = run_words(data, tmp_path / "out")
    assert main(words) == 0
    (path,) = (tmp_path / "out").rglob("result.json")
    path.write_text(path.read_text().replace('"finished"', '"interrupted"'))
    assert main(words) == 0
    assert json.loads(path.read_text())["status"] == "finished"


def test_weights_that_are_not_finite_are_never_kept():
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune"), scenario)
    kept = []
    loop.after_epoch = lambda: kept.append(loop.epoch)

    def poison():
        if loop.epoch == 1:
            next(iter(loop.network.parameters())).data.fill_(float("nan"))

    loop.strategy.after_iteration = poison
    with pytest.raises(RunError, match="not finite"):
        loop.train([scenario.experiences[0]])
    assert kept == [1]
