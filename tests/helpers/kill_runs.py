"""Kills real runs with SIGKILL at random moments and lets the same command go on; also `make soak N=25`."""

import gc
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from safetensors.torch import load_file

from tiny_runs import run_words, tiny_voc

SETTINGS = ["--set", "training.epochs=5"]  # the first step is shared: a kill around its publication counts too


class Outcome(NamedTuple):
    """Outcome of one kill: where the run went on, iterations trained after it, True if the end was the same."""

    resumed: str
    step: int
    trained: int
    equal: bool


def command(data: Path, output: Path, strategy: str = "mib+replay") -> list[str]:
    """The words of the run that is killed."""
    return run_words(data, output, *SETTINGS, benchmark="voc15-5s", strategy=strategy)


def start(words: list[str], log: Path, **variables: str) -> multiprocessing.Process:
    """Run the command line in a process of its own (forked: it need not import everything again)."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, log, variables))
    process.start()
    return process


def _run(words: list[str], log: Path, variables: dict[str, str]) -> None:
    import torch

    from densecl.cli import main

    os.environ.update(variables)
    torch.set_num_threads(1)
    gc.callbacks.clear()  # the test libraries' own: an interrupt that falls into one of them is swallowed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        try:
            os._exit(main(words))
        except BaseException:  # the log would be closed before it is told
            traceback.print_exc(file=file)
            raise


def finished(output: Path) -> tuple[dict, dict]:
    """(record without times, tensors of every kept weight file) of the one run below `output`."""
    (path,) = output.rglob("result.json")
    record = json.loads(path.read_text())
    del record["environment"]["git"], record["digest"]  # the checkout may move on while this runs
    for step in record["steps"]:
        del step["seconds"], step["peak_memory"]
    files = sorted((path.parent / "weights").glob("*.safetensors"))
    # cloned: what is read is a view of the file, which a later run replaces
    weights = {file.name: {name: tensor.clone() for name, tensor in load_file(file).items()} for file in files}
    return record, weights


def same(a: tuple[dict, dict], b: tuple[dict, dict]) -> bool:
    """Equal records and bit-equal weights."""
    records = a[0] == b[0]
    files = a[1].keys() == b[1].keys()
    return (
        records
        and files
        and all(
            a[1][name].keys() == b[1][name].keys() and all((a[1][name][k] == b[1][name][k]).all() for k in a[1][name])
            for name in a[1]
        )
    )


def whole_run(data: Path, output: Path) -> float:
    """Run without a kill; the seconds from its first file to its end."""
    process = start(command(data, output), output.with_suffix(".log"))
    _wait_for(output, process)
    begin = time.perf_counter()
    process.join()
    assert process.exitcode == 0, output.with_suffix(".log").read_text()
    return time.perf_counter() - begin


def kill_once(data: Path, output: Path, reference: tuple[dict, dict], moment: float, while_writing: bool) -> Outcome:
    """Kill a fresh run `moment` seconds after its first file (then at the next write, if asked), and let it go on."""
    shutil.rmtree(output, ignore_errors=True)
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    process = start(command(data, output), log)
    _wait_for(output, process)
    time.sleep(moment)
    deadline = time.perf_counter() + 5
    while while_writing and process.is_alive() and time.perf_counter() < deadline:
        if next(output.rglob(".*.tmp"), None) is not None:
            break
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    log.write_text("")
    process = start(command(data, output), log)
    process.join()
    text = log.read_text()
    assert process.exitcode == 0, text
    found = re.search(r"going on in step (\d+) after epoch \d+ \((\d+) iterations\)|going on at step (\d+)", text)
    done = reference[0]["steps"]
    if found is None:
        step, before = (len(done), sum(s["iterations"] for s in done)) if "already finished" in text else (0, 0)
    else:
        step = int(found[1] or found[3])
        before = sum(s["iterations"] for s in done[:step]) + int(found[2] or 0)
    trained = sum(s["iterations"] for s in done) - before
    where = found[0] if found else ("already finished" if step else "from the start")
    return Outcome(where, step, trained, same(finished(output), reference))


def _wait_for(output: Path, process: multiprocessing.Process) -> None:
    """Until the run has written its first record."""
    while process.is_alive() and next(output.rglob("result.json"), None) is None:
        time.sleep(0.005)


def soak(count: int, seed: int) -> int:
    """`count` kills, each said in a line; the number that did not end equal."""
    import densecl.runner.run  # noqa: F401 (once, here: the forked runs then need not)

    rng = random.Random(seed)
    with TemporaryDirectory() as folder:
        data = tiny_voc(Path(folder) / "data").parents[1]
        seconds = whole_run(data, Path(folder) / "whole")
        reference = finished(Path(folder) / "whole")
        outcomes = []
        for number in range(count):
            moment, writing = rng.uniform(0, seconds), rng.random() < 0.5
            outcome = kill_once(data, Path(folder) / "killed", reference, moment, writing)
            outcomes.append(outcome)
            kind = "while writing" if writing else "anywhere"
            verdict = "equal" if outcome.equal else "DIFFERENT"
            print(
                f"{number + 1:3}  killed at {moment:5.2f} s of {seconds:.2f} ({kind}): {outcome.resumed}: {verdict}",
                flush=True,
            )
    later = sum(outcome.step > 0 for outcome in outcomes)
    print(f"{sum(o.equal for o in outcomes)} of {count} equal, {later} killed after step 0")
    return sum(not outcome.equal for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(soak(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0) > 0)
