"""A VOC tree of a few small images, and settings under which a whole run on it takes seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_trees import LISTS, palette_mask
from densecl.cli import main

SIZE = 32
BACKBONE = (
    "bisenet(encoder=mini,encoder_widths=(4,8,8,8),weights=none,width=8,spatial=(8,8),spatial_width=8,"
    "context_width=8,fusion=1)"
)
SETTINGS = (
    "training.iterations=4",
    "training.lr=0.03",
    "training.batch=2",
    "training.crop=32",
    "training.optimizer=adamw",
    "evaluation.size=32",
    "loader.workers=0",
)
# Four classes an image: 0..4 hold classes of 1-15 only, 5..9 hold the classes 16-20 as well.
CLASSES = tuple(
    (1 + 3 * k, 2 + 3 * k, 3 + 3 * k, 1 + (3 * k + 5) % 15) if k < 5 else (11 + k, 1 + k % 3, 11 + k, 4 + k)
    for k in range(10)
)


def flags(*assignments: str) -> list[str]:
    """`--set` for each assignment."""
    return [word for text in assignments for word in ("--set", text)]


def run_words(data: Path, output: Path, *more: str, benchmark: str = "voc15-5", strategy: str = "mib") -> list[str]:
    """The words of `densecl run` for a tiny run."""
    words = ["run", "-b", benchmark, "-s", strategy, "--backbone", BACKBONE, "--data", str(data)]
    return [*words, "--output", str(output), "--device", "cpu", *flags(*SETTINGS), *more]


def tiny_voc(root: Path) -> Path:
    """A VOC tree below `root`: ten images to train on and three to test on, 32x32. The VOC2012 folder."""
    folder = root / "VOCdevkit" / "VOC2012"
    for part in (LISTS, "JPEGImages", "SegmentationClass"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (256, 3))
    for split, rows in (("train", CLASSES), ("val", CLASSES[3:9:2])):
        names = [f"{split}_{k}" for k in range(len(rows))]
        (folder / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name, classes in zip(names, rows, strict=True):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            for place, label in enumerate(classes):
                mask[4:28, 8 * place + 1 : 8 * place + 7] = label
            mask[:2] = 255
            pixels = np.clip(colours[mask] + rng.integers(-20, 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
            palette_mask(folder / "SegmentationClass" / f"{name}.png", mask)
    return folder


def refused(capsys: pytest.CaptureFixture[str], words: Sequence[object], *named: object) -> str:
    """Run a command that must be refused in one line that has these names, and return the line."""
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("densecl: ")
    assert shown.err.count("\n") == 1
    assert all(str(name) in shown.err for name in named), shown.err
    return shown.err


def refused_run(capsys, voc, named, *more, output=None, **which):
    """A run that must be refused and leave nothing behind."""
    output = output or voc.parent / "results"
    line = refused(capsys, run_words(voc, output, *more, **which), *named)
    assert not output.exists() or not list(output.rglob("*"))
    return line
