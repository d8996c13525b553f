"""Many made-up records, as a long search for settings leaves them: set-ups of a few methods, several seeds each."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from densecl.metrics.iou import class_metrics
from densecl.records.record import Evaluation, Record, StepRecord

METHODS = ("finetune", "lwf", "ilt", "mib", "plop", "mib+replay", "mib+ewc", "joint")
STEPS = ((*range(1, 16),), (16,), (17,), (18,), (19,), (20,))
CLASSES = 21  # with background


def write_records(root: Path, set_ups: int, seeds: int = 1, benchmarks: int = 1) -> None:
    """Write `set_ups` x `seeds` records below `root`, spread over as many benchmarks, with a matrix of each step."""
    learnt = {(method, k): _scores(method, k) for method in METHODS for k in range(6)}
    for number in range(set_ups):
        method = METHODS[number % len(METHODS)]
        for seed in range(seeds):
            benchmark = f"made{number % benchmarks}-15-1"
            content = learnt[method, (number // len(METHODS) + seed) % 6] | {
                "benchmark": benchmark,
                "seed": seed,
                "hash": f"{number:04x}{seed:04x}",
                "settings": _settings(benchmark, number, seed),
            }
            path = root / benchmark / f"run{number}" / f"s{seed}" / "result.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))


def _scores(method: str, variant: int) -> dict[str, Any]:
    """A record of a method as JSON has it; `variant` decides its matrices."""
    rng = np.random.default_rng([METHODS.index(method), variant])
    steps: list[StepRecord] = []
    taken = [tuple(label for step in STEPS for label in step)] if method == "joint" else STEPS
    for index, new in enumerate(taken):
        seen = [0, *(label for step in taken[: index + 1] for label in step)]
        matrix = np.zeros((CLASSES, CLASSES), np.int64)
        matrix[:, seen] = rng.integers(0, 40, (CLASSES, len(seen)))
        matrix[seen, seen] += rng.integers(100, 3000, len(seen))
        earlier = [step.evaluations[0].metrics["iou"] for step in steps]
        joint = method == "joint"
        metrics = class_metrics(matrix, STEPS, index, earlier, joint=joint, has_background=True, labels="plop2021")
        evaluation = Evaluation(task="segmentation", metrics=metrics, confusion=matrix.tolist())
        step = StepRecord(
            step=index, task="segmentation", new_classes=list(new), iterations=100, seconds=60 * rng.random(),
            stored_bytes=int(rng.integers(10**8)), evaluations=[evaluation],
        )  # fmt: skip
        steps.append(step)
    record = Record(
        densecl="0.1.0", benchmark="made", strategy=method, backbone="bisenet", seed=0, hash="0", status="finished",
        settings={}, environment={"python": "3.11.7", "torch": "2.6.0", "images": {"train": 1000, "test": 100}},
        class_names=["background", *(f"class {label}" for label in range(1, CLASSES))], has_background=True,
        planned_steps=[list(step) for step in STEPS], steps=steps,
    )  # fmt: skip
    return record.model_dump(mode="json", by_alias=True)


def _settings(benchmark: str, number: int, seed: int) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "seed": seed,
        "strategy_values": {"weight": float(number)},
        "backbone_values": {"encoder": "resnet18", "weights": "none"},
        "stream": {"setting": "overlapped", "labels": "plop2021", "order": list(range(1, CLASSES))},
        "training": {f"option{k}": k for k in range(40)} | {"lr": random.Random(number).choice([0.01, 0.003])},
        "evaluation": {"size": 512},
    }
