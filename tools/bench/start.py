"""Processor seconds until a command answers, beside the import of torch, and what a sweep costs beside its training."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import densecl
from bench.rows import COST, Bench, Goal, Row, Spent

COMMANDS = {  # with their exit codes
    "show mib": 0,
    "list strategies": 0,
    "cite mib": 0,
    "doctor --quick": 0,
    "run --benchmark nowhere.toml --strategy mib": 2,
}
FIRST = """
import os, sys
from densecl.training.loop import Loop
update = Loop.update
def once(loop, batch):
    update(loop, batch)
    os._exit(0)
Loop.update = once
from densecl.cli import main
main(sys.argv[1:])
"""

SMALL = {"commands": {"show mib": 0}, "runs": 0}  # a run and a sweep take half a minute, however short


def measure(bench: Bench, commands: Mapping[str, int] = COMMANDS, runs: int = 2) -> Iterator[Row]:
    """Commands, a run up to its first update, and a sweep of `runs` seeds by two jobs over the same runs in a row."""
    for words, code in commands.items():
        yield _beside_torch(bench, f"densecl {words}", ["-m", "densecl", *words.split()], Goal(seconds=0.5), code)
    if not runs:
        return
    with TemporaryDirectory() as folder:
        words = ["run", "-b", "shapes15-5", "-s", "mib", "--output", folder, "--device", str(bench.device), "--quiet"]
        _child(["-c", FIRST, *words])  # fills the cache
        yield _beside_torch(bench, "densecl run, up to its first update", ["-c", FIRST, *words], Goal(seconds=3.5))
        yield _sweep(Path(folder), runs)


def _beside_torch(bench: Bench, what: str, words: Sequence[str], goal: Goal, code: int = 0) -> Row:
    turns = [(_child(words, code), _child(["-c", "import torch"])) for _ in range(bench.repeats)]
    return Row(f"{what}, processor", ("the command", "import torch"), turns, COST, goal=goal)


def _sweep(folder: Path, runs: int) -> Row:
    """One turn: `densecl sweep` with two jobs, and the same runs one after another in this process."""
    plan = folder / "plan.toml"
    plan.write_text(f'benchmarks = ["shapes15-5"]\nstrategies = ["finetune"]\nseeds = {[*range(runs)]}\n')
    words = ["sweep", str(plan), "--output", str(folder / "sweep"), "--jobs", "2", "--device", "cpu", "--quiet"]
    swept, start = _child(["-m", "densecl", *words]), time.process_time()
    for seed in range(runs):
        densecl.run("shapes15-5", "finetune", seed=seed, output=folder / "one", device="cpu", share=False)
    alone = time.process_time() - start
    names = ("densecl sweep --jobs 2", "training in one process")
    what = f"{runs} runs of shapes15-5, processor"
    return Row(what, names, [(swept, Spent(alone, alone))], COST, goal=Goal(ratio=1.15))


def _child(words: Sequence[str], code: int = 0) -> Spent:
    """Processor seconds of a Python process and of all that it starts, by one thread each; RuntimeError if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(seconds, seconds)
