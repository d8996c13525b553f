"""Runs under torchrun: the command line in two processes, bad input, a process that dies, and going on with one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_scenario
from densecl.cli import main
from densecl.errors import RunError, SettingError
from densecl.runner.methods import parse_method
from densecl.streams.samples import UNCOUNTED
from densecl.training import distributed
from densecl.training.batch import Batch, sizes, split
from densecl.training.loader import EpochBatches
from kill_runs import start
from tiny_runs import flags, run_words, tiny_voc

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "densecl"]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def torchrun(words, **more):
    return subprocess.run([*TORCHRUN, *words], capture_output=True, text=True, timeout=240, env=environment(**more))


def said(output):
    """Lines that densecl itself says of an error; torchrun adds a report of its own."""
    return [line for line in output.splitlines() if line.startswith("densecl:")]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return tiny_voc(tmp_path_factory.mktemp("voc"))


@pytest.mark.parametrize(("n", "batch", "world", "least"), [(20, 6, 2, 2), (7, 4, 3, 1), (1, 4, 2, 2), (23, 8, 4, 2)])
@pytest.mark.parametrize("replayed", [0, 3])
def test_the_shares_of_an_epoch_are_a_partition_of_its_batches(n, batch, world, least, replayed):
    def extend(keys, epoch, iteration):
        return keys + [keys[0]._replace(source=0, position=100 + k) for k in range(replayed)]

    alone = list(EpochBatches(n, batch, 0, 1, extend))
    shares = [list(EpochBatches(n, batch, 0, 1, extend, rank=r, world=world, least=least)) for r in range(world)]
    for whole, *parts in zip(alone, *shares, strict=True):
        counted = [key for part in parts for key in part if key.counts]
        assert sorted(counted) == sorted(whole)
        assert min(map(len, parts)) >= min(least, len(whole))  # each has enough for BatchNorm, counted or not


def test_sizes_of_parts_add_up_and_leave_out_what_does_not_count():
    target = torch.full((6, 4, 4), 255)
    target[0], target[3, :2], target[5, 0] = 1, 2, 0
    index = torch.tensor([3, 1, 7, 2, 9, UNCOUNTED])
    weight = torch.tensor([2.0, 1, 1, 0.5, 1, 1])
    batch = Batch(torch.zeros(6, 3, 4, 4), target, weight, torch.zeros(6), index)
    assert sizes(batch).tolist() == [2 * 16 + 0.5 * 8, 5]
    assert torch.stack([sizes(part) for part in split(batch, 3)]).sum(0).tolist() == sizes(batch).tolist()
    image_targets = batch._replace(target=torch.zeros(6, 2, 4, 4))
    assert sizes(image_targets).tolist() == [2 + 1 + 1 + 0.5 + 1, 5]


@pytest.mark.usefixtures("one_thread")
def test_a_process_that_dies_ends_the_run_with_one_message_and_one_process_goes_on(voc, tmp_path, capsys):
    words = run_words(voc, tmp_path / "out", *flags("training.batch=4", "training.iterations=60"))
    run = subprocess.Popen(
        [*TORCHRUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").rglob("*.ckpt")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workers = [p for p in children(run.pid) if b"RANK=1" in Path(f"/proc/{p}/environ").read_bytes().split(b"\0")]
        os.kill(workers[0], signal.SIGKILL)
        output, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode != 0
    lines = said(errors)
    assert len(lines) == 1, errors
    assert "another process of the run has died" in lines[0]
    assert "mIoU in %" not in output

    assert main(words) == 0
    assert "going on in 1 process instead of 2" in capsys.readouterr().err
    record = json.loads(next((tmp_path / "out").rglob("result.json")).read_text())
    assert record["status"] == "finished"
    assert record["environment"]["world"] == 1
    assert [entry["world"] for entry in record["environment"]["earlier_worlds"]] == [2]


def children(pid):
    """Processes below `pid`."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    own = [int(child) for task in tasks for child in task.read_text().split()]
    return own + [grandchild for child in own for grandchild in children(child)]


def test_two_processes_run_the_command_line_and_only_the_main_one_speaks(voc, tmp_path):
    done = torchrun(run_words(voc, tmp_path / "out", *flags("training.batch=4")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU in %") == 1
    assert done.stderr.count("step 1 (2 of 2):") == done.stderr.count("step 1 (2 of 2) begins") == 1
    record = json.loads(next((tmp_path / "out").rglob("result.json")).read_text())
    assert record["environment"]["world"] == 2
    assert record["environment"]["bn_sync"] is False
    labelled = sum(sum(row) for row in record["steps"][0]["evaluations"][0]["confusion"])
    assert labelled == 3 * 30 * 32  # three test images, two rows of each void


def test_bad_input_is_said_once(voc, tmp_path):
    """By forks with the variables that torchrun sets, which need not import everything again."""
    words, logs = run_words(voc, tmp_path / "out", strategy="mibb"), [tmp_path / "0.log", tmp_path / "1.log"]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    for process in [start(words, log, **place, **rank) for log, rank in zip(logs, ranks, strict=True)]:
        process.join(120)
        assert process.exitcode == 2
    lines = [line for log in logs for line in said(log.read_text())]
    assert len(lines) == 1, lines
    assert "mibb" in lines[0]
    assert not (tmp_path / "out").exists()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_what_cannot_be_right_in_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(SettingError, match="SynapticIntelligencePlugin is a stock Avalanche plugin"):
        tiny_loop(parse_method("finetune+si"), tiny_scenario())
    with pytest.raises(SettingError, match=r"training\.batch=3 is too small for 2 processes.*training\.batch=4"):
        tiny_loop(parse_method("mib"), tiny_scenario(), training=TRAINING.model_copy(update={"batch": 3}))


def test_a_process_whose_process_0_does_not_listen_waits_a_bounded_time(monkeypatch):
    port = free_port()
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    assert timedelta(minutes=1) < distributed.MEETING < timedelta(hours=1)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
    start = time.perf_counter()
    with pytest.raises(RunError, match=f"process 1 cannot meet the others of the run at 127.0.0.1:{port}: [^\\n]*$"):
        distributed.join()
    assert time.perf_counter() - start < 60
