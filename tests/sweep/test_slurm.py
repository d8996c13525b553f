"""A sweep on a real SLURM of one node; skipped where its daemons are absent (python tests/slurm_cluster.py install)."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import slurm_cluster
from densecl.records.record import find_records
from tiny_runs import BACKBONE, SETTINGS

pytestmark = pytest.mark.skipif(not slurm_cluster.installed(), reason="no slurmctld, slurmd and munged, or not root")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm():
    """A running cluster; one that was running before stays."""
    before = slurm_cluster.running()
    slurm_cluster.start()
    yield {**slurm_cluster.environment(), "PYTHONPATH": str(ROOT)}
    if not before:
        slurm_cluster.stop()


def ask(slurm, *words):
    return subprocess.run(words, env=slurm, capture_output=True, text=True, check=True, timeout=60).stdout


def in_queue(slurm):
    """State of each job in the queue by id."""
    lines = ask(slurm, "squeue", "--noheader", "--array", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def start(slurm, words):
    command = [sys.executable, "-m", "densecl", *map(str, words)]
    return subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, what, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def begin_at_once(slurm, job):
    """SLURM lets a requeued job wait for two minutes."""
    wait_for(lambda: in_queue(slurm).get(job) == "PENDING", "the requeued job is not pending")
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], env=slurm, check=True, timeout=60)


def test_a_sweep_goes_through_the_queue_with_a_job_requeued_and_the_command_killed(voc, tmp_path, slurm):
    output = tmp_path / "results"
    plan = tmp_path / "plan.toml"
    settings = [*SETTINGS[1:], "training.epochs=80"]
    plan.write_text(
        f"benchmarks = ['voc15-5']\nstrategies = ['mib', 'finetune']\nseeds = [0, 1]\n"
        f"backbones = [{BACKBONE!r}]\nset = {settings!r}\n"
        "[[runs]]\nstrategies = ['finetune']\nseeds = [0]\nset = ['training.later.lr=1e30']\n"
        "[slurm]\npoll = 0.5\ntime = '0:20:00'\n"
    )
    words = ["sweep", plan, "--engine", "slurm", "--data", voc, "--output", output, "--device", "cpu"]
    process = start(slurm, words)
    wait_for(lambda: any(output.rglob("step*-epoch*.ckpt")), "no run begins")
    states = in_queue(slurm)
    assert len(states) == 5
    assert any(state == "PENDING" for state in states.values())
    run = next(output.rglob("step*-epoch*.ckpt")).parents[1].name
    book = json.loads((output / ".sweep" / "plan" / "slurm.json").read_text())
    preempted = book[run.partition("-")[2]]
    subprocess.run(["scontrol", "requeue", preempted], env=slurm, check=True, timeout=60)
    begin_at_once(slurm, preempted)
    process.kill()  # the jobs stay, and the same command looks after them
    process.communicate()
    process = start(slurm, words)
    out, said = process.communicate(timeout=1500)
    assert process.returncode == 1, said  # one run was made to fail
    assert re.search(r"SLURM: 0 jobs submitted, [2-5] in the queue already", said)
    assert "failed, job " in said
    assert "the loss is not finite at step 1" in said
    found = [record for _, record in find_records(output)[0]]
    assert sorted(record.status for record in found) == ["failed", *["finished"] * 4]
    shared = sorted((record.seed, record.steps[0].shared) for record in found)
    assert shared == [(0, False), (0, True), (0, True), (1, False), (1, True)]
    logs = "".join(path.read_text() for path in (output / ".sweep" / "plan").glob("*.log"))
    assert re.search(r"going on (at|in) step", logs)
    assert "waiting for another run to train the first step" not in logs
    assert out.startswith("voc15-5")


def test_what_sbatch_refuses_is_one_line(voc, tmp_path, slurm):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f"benchmarks = ['voc15-5']\nstrategies = ['joint']\nbackbones = [{BACKBONE!r}]\nset = {[*SETTINGS]!r}\n"
        "[slurm]\npartition = 'nowhere'\n"
    )
    words = ["sweep", plan, "--engine", "slurm", "--data", voc, "--output", tmp_path / "results", "--device", "cpu"]
    process = start(slurm, words)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2
    assert re.search(r"^densecl: sbatch refused the jobs: .*partition.*\[slurm\] of the plan$", said, re.MULTILINE)
