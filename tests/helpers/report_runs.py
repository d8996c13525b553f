"""Runs for tests of the report: the committed records with changes, and tiny runs of every kind that it shows."""

import json
import shutil
from pathlib import Path
from typing import Any

from densecl.cli import main
from tiny_runs import run_words, tiny_voc

COMMITTED = Path(__file__).parents[2] / "results" / "embedded" / "deepinversion" / "shapes15-5s"
SEQUENCE = ("-b", "shapes-3tasks", "--backbone", "unet(width=4,depth=2)", "--device", "cpu")
SHORT = ("--set", "training.iterations=2", "--set", "training.batch=4")


def committed(root: Path, index: int, change: dict[str, Any] | None = None, **values: Any) -> Path:
    """A copy of a committed record in a folder of its own below `root`: `change` updates its settings. The folder."""
    source = sorted(COMMITTED.rglob("result.json"))[index]
    folder = root / f"run{len(list(root.glob('run*'))) if root.exists() else 0}"
    folder.mkdir(parents=True)
    shutil.copy(source, folder / "result.json")
    content = json.loads(source.read_text())
    edited(folder / "result.json", **values, settings=content["settings"] | (change or {}))
    return folder


def edited(path: Path, **values: Any) -> None:
    """Put other values into a record's file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def make_runs(root: Path) -> None:
    """A dozen tiny runs in `root/results`, with pictures, masks, weights and synthetic images, and their report."""
    data, results = root / "data", root / "results"
    tiny_voc(data)
    made = [("mib", seed) for seed in range(3)] + [("finetune", seed) for seed in range(3)] + [("joint", 0)]
    made.append(("mib+deepinversion(iterations=2,images_per_class=1)", 0))
    for strategy, seed in made:
        assert main(run_words(data, results, "--quiet", "--seed", str(seed), strategy=strategy)) == 0
    for strategy, seed in (("finetune", 0), ("finetune", 1), ("piggyback", 0), ("packnet", 0)):
        words = ["run", *SEQUENCE, "-s", strategy, "--seed", str(seed), "--output", str(results), "--quiet", *SHORT]
        assert main(words) == 0
    assert main(["report", str(results), "-o", str(root / "report.html")]) == 0
    assert main(["report", str(results), "--leaderboard", "-o", str(root / "leaderboard.html")]) == 0
