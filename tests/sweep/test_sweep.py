"""Sweeps on the local engine: with stand-ins for runs, which take a moment, and with real ones."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import filelock
import pytest
import submitit

import densecl
import forked_runs
from densecl.cli import main
from densecl.records.record import find_records
from densecl.sweep import launch
from densecl.sweep.jobs import Where, check, make_jobs
from densecl.sweep.planfile import expand, read_plan
from densecl.sweep.submit import Local
from tiny_runs import BACKBONE, SETTINGS

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = {"benchmarks": ["voc15-5"], "backbones": [BACKBONE], "set": [*SETTINGS], "device": "cpu"}

# A stand-in for a run: notes when it began and ended, makes its first step when it has to, and ends as it is told.
STAND_IN = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
told = json.load(open(os.environ["STAND_IN"]))
name = words[words.index("--strategy") + 1] + words[words.index("--seed") + 1]
def write_what_is_pending(*_):
    time.sleep(1.5); note("stopped"); os._exit(143)
if told.get("patient"):
    signal.signal(signal.SIGTERM, write_what_is_pending)
def note(what):
    with open(told["notes"], "a") as file:
        file.write(f"{what} {name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {os.getpid()}\\n")
note("begin")
first = pathlib.Path(told["first"].get(name) or __file__)
if name in told["fail"]:
    print("line of", name); print("the last words", file=sys.stderr); note("end"); sys.exit(told["fail"][name])
if not first.exists():
    note("first"); time.sleep(0.15); first.touch()
time.sleep(told.get("seconds", 0.05)); note("end")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Runs are stood in for: the returned function makes jobs and says how they end, `notes` reads what they did."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(launch, "RUN", (sys.executable, "-S", "-E", str(script)))
    monkeypatch.setenv("STAND_IN", str(tmp_path / "told.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def jobs_of(voc, fail=None, seconds=0.05, patient=False, **content):
        output = tmp_path / "results"
        (output / ".shared").mkdir(parents=True, exist_ok=True)
        jobs = make_jobs(expand(read_plan({**PLAN, **content})), Where(output, voc, "cpu"), "PLAN")
        jobs = check(jobs, "PLAN", 1)
        first = {f"{j.request.strategy}{j.request.seed}": str(j.first_step_file) for j in jobs if j.first_step}
        told = {"notes": str(tmp_path / "notes"), "first": first, "fail": fail or {}, "seconds": seconds}
        told["patient"] = patient
        (tmp_path / "told.json").write_text(json.dumps(told))
        return jobs

    return jobs_of


def notes(tmp_path):
    """(what, run, GPU, process) of all that stand-ins noted."""
    path = tmp_path / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def noted(tmp_path, what, count, seconds=120):
    """Wait for so many notes of one kind; the processes that wrote them."""
    deadline = time.monotonic() + seconds
    while len(found := [int(note[3]) for note in notes(tmp_path) if note[0] == what]) < count:
        assert time.monotonic() < deadline, notes(tmp_path)
        time.sleep(0.05)
    return found


def drive(engine, jobs, seconds=120):
    """Poll until all have ended; what ended, and how many ran at each look."""
    ended, counts, deadline = [], [], time.monotonic() + seconds
    while len(ended) < len(jobs):
        assert time.monotonic() < deadline
        ended += engine.poll()
        counts.append(len(engine.running()))
        time.sleep(0.01)
    return ended, counts


def local(jobs, tmp_path, slots, **more):
    return Local(jobs, {job.number: tmp_path / f"{job.number}.log" for job in jobs}, slots, **more)


# ---- the engine


def test_so_many_run_at_a_time_and_each_once(voc, tmp_path, stand_in):
    jobs = stand_in(voc, strategies=["dkd"], seeds=[*range(7)])
    ended, counts = drive(local(jobs, tmp_path, 3), jobs)
    assert max(counts) == 3
    assert sorted(result.job.number for result in ended) == [*range(1, 8)]
    assert Counter(note[0] for note in notes(tmp_path)) == {"begin": 7, "end": 7}


def test_a_first_step_is_trained_by_one_run_before_the_others_begin(voc, tmp_path, stand_in):
    jobs = stand_in(voc, strategies=["mib", "lwf", "finetune"], seeds=[0, 1])
    _, counts = drive(local(jobs, tmp_path, 6), jobs)
    seen = notes(tmp_path)
    assert sorted(note[1] for note in seen if note[0] == "first") == ["mib0", "mib1"]
    assert {note[1] for note in seen[: max(k for k, note in enumerate(seen) if note[0] == "first")]} <= {"mib0", "mib1"}
    assert max(counts) > 2  # the others do not wait for the whole of the run that trained it


def test_when_the_run_that_trains_a_first_step_fails_the_next_one_does(voc, tmp_path, stand_in):
    jobs = stand_in(voc, {"mib0": 3}, strategies=["mib", "lwf", "finetune"])
    ended, _ = drive(local(jobs, tmp_path, 3), jobs)
    seen = notes(tmp_path)
    assert [note[1] for note in seen if note[0] == "first"] == ["lwf0"]
    assert [note[:3] for note in seen[:3]] == [["begin", "mib0", "-"], ["end", "mib0", "-"], ["begin", "lwf0", "-"]]
    assert [result.problem for result in ended] == ["exit code 3", "", ""]


def test_a_failing_run_shows_the_last_lines_of_its_last_start(voc, tmp_path, stand_in):
    jobs = stand_in(voc, {"dkd0": 7}, strategies=["dkd"])
    log = tmp_path / "1.log"
    log.write_text("$ densecl run\nan earlier start\n")
    (result,), _ = drive(local(jobs, tmp_path, 1), jobs)
    assert result.problem == "exit code 7"
    assert sorted(result.lines) == ["line of dkd0", "the last words"]
    assert "an earlier start" in log.read_text()


def test_gpus_are_shared_evenly_among_slots(voc, tmp_path, stand_in):
    jobs = stand_in(voc, strategies=["dkd"], seeds=[0, 1, 2, 3])
    drive(local(jobs, tmp_path, 4, devices=["0", "5"]), jobs)
    assert Counter(note[2] for note in notes(tmp_path) if note[0] == "begin") == {"0": 2, "5": 2}


def test_a_run_whose_folder_is_held_waits_and_takes_no_slot(voc, tmp_path, stand_in):
    jobs = stand_in(voc, strategies=["dkd"], seeds=[0, 1])
    folder = jobs[0].plan.folder
    folder.mkdir(parents=True)
    engine = local(jobs, tmp_path, 1)
    with filelock.FileLock(folder / ".lock"):
        (first,), _ = drive(engine, jobs[:1])
    (second,), _ = drive(engine, jobs[:1])
    assert (first.job.number, second.job.number) == (2, 1)


def test_stopping_ends_all_processes(voc, tmp_path, stand_in, monkeypatch):
    jobs = stand_in(voc, strategies=["dkd"], seeds=[0, 1], seconds=60)
    engine = local(jobs, tmp_path, 2)
    engine.poll()
    tasks = [task for _, task in engine._running.values()]
    processes = noted(tmp_path, "begin", 2)
    monkeypatch.setattr(engine, "_close", lambda: None)
    begin = time.monotonic()
    assert "the same command goes on" in engine.stop()
    assert [task.result() for task in tasks] == [-signal.SIGTERM] * 2
    assert all(gone(process) for process in processes)
    assert time.monotonic() - begin < 10
    monkeypatch.undo()
    engine._close()


@pytest.mark.parametrize(("number", "stopped"), [(signal.SIGINT, 2), (signal.SIGKILL, 2)], ids=lambda value: str(value))
def test_ctrl_c_and_sigkill_leave_no_run_behind_and_each_has_time_to_write(voc, tmp_path, stand_in, number, stopped):
    """A terminal sends SIGINT to all processes of the group, submitit's included."""
    jobs = stand_in(voc, strategies=["dkd"], seeds=[0, 1], seconds=60, patient=True)
    sweep = multiprocessing.get_context("fork").Process(target=sweep_until_stopped, args=(jobs, tmp_path))
    sweep.start()
    processes = noted(tmp_path, "begin", 2)
    (os.killpg if number == signal.SIGINT else os.kill)(sweep.pid, number)
    sweep.join(60)
    assert sweep.exitcode == (130 if number == signal.SIGINT else -number)
    assert len(noted(tmp_path, "stopped", stopped, 0.1 if number == signal.SIGINT else 60)) == stopped
    assert all(gone(process) for process in processes)


def sweep_until_stopped(jobs, tmp_path):
    """A sweep in a process group of its own."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    engine = local(jobs, tmp_path, 2)
    try:
        drive(engine, jobs)
    except KeyboardInterrupt:
        engine.stop()
        os._exit(130)


def test_a_process_that_does_not_listen_is_killed_with_all_it_started(tmp_path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    grandchild = int(process.stdout.readline())
    launch.stop(process, patience=0.2)
    assert process.returncode == -signal.SIGKILL
    assert gone(grandchild)


def test_a_child_stops_when_the_sweep_is_gone():
    code = (
        "import threading, time; from densecl.cli.child import stop_when_left;"
        "threading.Thread(target=stop_when_left, args=(0,), daemon=True).start();"
        "print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGTERM


def gone(number, seconds=30):
    """True if a process ends (or is left as a zombie, which its new parent has not collected) within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


# ---- the command


def changed(path):
    """When a file was written; 0 where it has gone since it was listed."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def write_plan(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_text(f"backbones = [{BACKBONE!r}]\nset = {[*SETTINGS]!r}\nbenchmarks = ['voc15-5']\n{text}")
    return path


def sweep_words(plan, voc, output, *more):
    return [str(w) for w in ("sweep", plan, "--data", voc, "--output", output, "--device", "cpu", *more)]


def records(output):
    found, faults = find_records(output)
    assert not faults
    return [record for _, record in found]


def test_a_second_sweep_in_a_folder_is_refused(voc, tmp_path, capsys):
    plan = write_plan(tmp_path, "strategies = ['mib']\n")
    (tmp_path / "results" / ".sweep").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "results" / ".sweep" / ".lock"):
        assert main(sweep_words(plan, voc, tmp_path / "results")) == 2
    assert "another sweep is running in" in capsys.readouterr().err


def test_a_dry_run_lists_what_is_left_and_writes_nothing(run_copy, finished, tmp_path, capsys):
    output = run_copy.parents[3]
    plan = write_plan(tmp_path, "strategies = ['mib', 'lwf', 'finetune']\nseeds = [0, 1]\n")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(sweep_words(plan, finished / "data", output, "--dry-run", "--jobs", "2")) == 0
    assert sorted(path for path in tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 runs: 1 finished, 0 to resume, 5 to do; 2 at a time, 1 thread each"
    table = {tuple(line.split()[1:3]): line for line in lines[4:10]}
    assert "finished" in table["mib", "0"]
    assert "trains for others" in table["mib", "1"]
    assert "of run 2" in table["lwf", "1"]
    assert " 8 " in table["mib", "1"]  # iterations: four a step
    assert " 4 " in table["lwf", "0"]  # its first step is there
    assert str(output) in table["lwf", "0"]
    assert lines[-2].startswith("estimate ")


def test_a_dry_run_tells_runs_of_one_method_apart_by_their_options(voc, tmp_path, capsys):
    methods = ["mib", "mib(distillation=5)", "mib+replay", "lwf(weight=3)"]
    plan = write_plan(tmp_path, f"strategies = {methods}\nseeds = [0, 1]\n")
    assert main(sweep_words(plan, voc, tmp_path / "results", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[1] for line in lines if line.strip()[:1].isdigit()]
    assert sorted(named[1:]) == sorted([*methods[:2] * 2, *["mib+replay"] * 2, *["lwf"] * 2])


def test_a_failing_run_does_not_stop_the_others(voc, tmp_path, capfd):
    output = tmp_path / "results"
    text = "strategies = ['finetune']\n[[settings]]\nset = ['training.later.lr=1e30']\n[[settings]]\nreported = 12.5\n"
    plan = write_plan(tmp_path, text)
    assert main(sweep_words(plan, voc, output, "--jobs", "2")) == 1
    shown = capfd.readouterr()
    assert sorted(record.status for record in records(output)) == ["failed", "finished"]
    assert "voc15-5, finetune, seed 0, training.later.lr=1e30: failed, exit code 2" in shown.err
    assert "    densecl: the loss is not finite at step 1" in shown.err
    assert "voc15-5, finetune, seed 0: finished" in shown.err
    assert "(reported 12.5)" in shown.err
    assert "densecl: 1 of 2 runs failed: run 1" in shown.err.splitlines()[-1]
    assert shown.out.startswith("voc15-5")
    assert "1 of 2 steps" in shown.out


def test_a_sweep_that_is_killed_twice_ends_complete(voc, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(submitit, "LocalExecutor", forked_runs.Executor)
    output = tmp_path / "results"
    plan = write_plan(tmp_path, "strategies = ['mib', 'lwf', 'finetune']\nseeds = [0, 1]\n")
    plan.write_text(plan.read_text().replace("training.iterations=4", "training.epochs=8"))  # time enough to be killed
    words = sweep_words(plan, voc, output, "--jobs", "2")
    for how in (signal.SIGKILL, signal.SIGTERM):
        begin = time.time()
        process = multiprocessing.get_context("fork").Process(target=leave_with, args=(words,))
        process.start()
        while not any(changed(path) > begin for path in output.rglob("step*.ckpt")):
            assert process.is_alive()
            time.sleep(0.005)
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert children
        os.kill(process.pid, how)
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert all(gone(child) for child in children)
        assert any(record.status != "finished" for record in records(output))
        assert ("the same command goes on" in capfd.readouterr().err) is (how != signal.SIGKILL)
    assert main(words) == 0
    shown = capfd.readouterr()
    assert "going on" in "".join(path.read_text() for path in (output / ".sweep" / "plan").glob("*.log"))
    found = records(output)
    assert [record.status for record in found] == ["finished"] * 6
    # of the three runs of each seed one trained the first step
    assert Counter((record.seed, record.steps[0].shared) for record in found) == {
        (0, False): 1,
        (0, True): 2,
        (1, False): 1,
        (1, True): 2,
    }
    assert "[6/6]" in shown.err
    assert shown.out.startswith("voc15-5")
    # and the same numbers as without a sweep
    options = {"data": voc, "device": "cpu", "seed": 1, "assignments": ["training.epochs=8", *SETTINGS[1:]]}
    alone = densecl.run("voc15-5", "mib", backbone=BACKBONE, output=tmp_path / "alone", **options)
    (swept,) = [record for record in found if record.hash == alone.hash]
    assert [step.evaluations for step in swept.steps] == [step.evaluations for step in alone.steps]


def leave_with(words):
    """The command line in a process of its own."""
    os._exit(main(words))


def test_from_python_finished_runs_are_read_and_nothing_is_started(run_copy, finished, monkeypatch, capsys):
    monkeypatch.setattr(launch, "RUN", ("/nowhere",))
    plan = {**PLAN, "strategies": ["mib"]}
    result = densecl.sweep(plan, data=finished / "data", output=run_copy.parents[3])
    assert [record.strategy for record in result.records] == ["mib"]
    assert result.failed == []
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
