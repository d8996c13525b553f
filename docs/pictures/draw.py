"""The pictures of the documentation, from records and from predictions; see README.md beside this file.

python docs/pictures/draw.py steps
python docs/pictures/draw.py predictions IMAGES STEP0 STEP1
python docs/pictures/draw.py photographs IMAGES STEP0 FINETUNE MIB DEEPINVERSION
python docs/pictures/draw.py dreams GALLERY
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecl.files import write_text
from densecl.records.record import Record, read_record

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "results" / "embedded" / "field" / "shapes15-5s"
LINES = {  # strategy -> what is drawn, colour and dash
    "finetune": ("fine-tuning", "#7a7a7a", "2 3"),
    "lwf": ("LwF", "#8a6d3b", "6 4"),
    "mib": ("MiB", "#b5482f", ""),
    "mib+deepinversion": ("+ DeepInversion", "#2a6fbb", ""),
    "mib+replay": ("+ 200 real images", "#3c8a4e", ""),
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 56, 150, 20, 46
GREY = "#808080"  # readable on a light and on a dark page
SHOWN = (2, 3, 6, 8, 15, 17)  # test images that hold classes of step 1
SCALE = 2
WIDE, GAP = 240, 6  # of a photograph in the strip, and between two
TITLES = ("photograph", "after step 0", "fine-tuning", "MiB", "MiB + DeepInversion")
LINE = 15
QUALITY = 88  # of JPEG


def steps() -> str:
    """Mean IoU of the classes of step 0 after each step, over seeds with a standard deviation, as SVG."""
    found = {name: _of_old_classes(name) for name in LINES}
    low, high, count = 0, 90, max(map(len, found.values()))

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / (count - 1)

    def y(percent: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - percent) / (high - low)

    parts = []
    for percent in range(low, high + 1, 15):
        parts.append(f'<path d="M{LEFT} {y(percent):.1f}H{WIDTH - RIGHT}" stroke="{GREY}" opacity="0.25"/>')
        parts.append(_text(LEFT - 8, y(percent) + 4, str(percent), "end"))
    parts += [_text(x(k), HEIGHT - BOTTOM + 20, str(k)) for k in range(count)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "step"))
    parts.append(_text(LEFT - 8, TOP - 8, "mIoU in %", "start"))
    ends: list[tuple[float, str, str]] = []
    for method, (name, colour, dash) in LINES.items():
        points = [(x(k), y(100 * mean), 100 * std) for k, (mean, std) in enumerate(found[method])]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        for a, b, std in points:
            half = std * (HEIGHT - TOP - BOTTOM) / (high - low)
            parts.append(f'<path d="M{a:.1f} {b - half:.1f}V{b + half:.1f}" stroke="{colour}" opacity="0.5"/>')
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>')
        ends.append((points[-1][1] + 4, name, colour))
    last = -LINE
    for height, name, colour in sorted(ends):  # names that would overlap are pushed down
        last = max(height, last + LINE)
        parts.append(_text(x(count - 1) + 10, last, name, "start", colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = "shapes15-5s: mIoU of the fifteen classes of step 0 after each step"
    return "\n".join([f'{head} role="img">', f"<title>{title}</title>", *parts, "</svg>", ""])


def predictions(images: Path, folders: Sequence[Path]) -> Image.Image:
    """Test images, and below them the labels of `densecl predict` after each step, as one picture."""
    rows = [np.concatenate([_pixels(images / f"test_{k:04}.png") for k in SHOWN], 1)]
    rows += [np.concatenate([_pixels(folder / f"test_{k:04}.mask.png") for k in SHOWN], 1) for folder in folders]
    whole = Image.fromarray(np.concatenate(rows))
    return whole.resize((SCALE * whole.width, SCALE * whole.height), Image.Resampling.NEAREST)


def photographs(images: Path, folders: Sequence[Path]) -> Image.Image:
    """Photographs in rows, and beside each the overlays of `densecl predict`: after step 0, then of methods."""
    rows = []
    for path in sorted(images.iterdir()):
        cells = [Image.open(path).convert("RGB")]
        cells += [Image.open(folder / f"{path.stem}.overlay.png").convert("RGB") for folder in folders]
        rows.append([cell.resize((WIDE, round(cell.height * WIDE / cell.width))) for cell in cells])
    heights = [max(cell.height for cell in row) for row in rows]
    title = LINE + 9
    whole = Image.new("RGB", (len(TITLES) * (WIDE + GAP) - GAP, title + sum(heights) + GAP * (len(rows) - 1)), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(LINE)
    for column, name in enumerate(TITLES):
        draw.text((column * (WIDE + GAP) + WIDE // 2, 2), name, "black", font, "ma")
    for k, row in enumerate(rows):
        for column, cell in enumerate(row):
            whole.paste(cell, (column * (WIDE + GAP), title + sum(heights[:k]) + GAP * k))
    return whole


def _of_old_classes(name: str) -> list[tuple[float, float]]:
    """Mean and standard deviation over seeds of the mIoU of step 0's classes, after each step."""
    records = [record for record in map(read_record, RECORDS.glob(f"{name}/*/*/result.json")) if _usual(record)]
    scores = [[step.evaluations[0].metrics["miou"]["base"] for step in record.steps] for record in records]
    return [(statistics.mean(seeds), statistics.stdev(seeds)) for seeds in zip(*scores, strict=True)]


def _usual(record: Record) -> bool:
    """False for replay of another memory than the 200 images of its default."""
    return record.settings["plugins"].get("replay", {"memory": 200})["memory"] == 200


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = GREY) -> str:
    style = f'font-family="sans-serif" font-size="13" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


if __name__ == "__main__":
    if sys.argv[1:] == ["steps"]:
        write_text(HERE / "steps.svg", steps())
    elif sys.argv[1:2] == ["predictions"] and len(sys.argv) == 5:
        images, *folders = map(Path, sys.argv[2:])
        predictions(images, folders).save(HERE / "predictions.png")
    elif sys.argv[1:2] == ["photographs"] and len(sys.argv) == 2 + len(TITLES):
        images, *folders = map(Path, sys.argv[2:])
        photographs(images, folders).save(HERE / "photographs.jpg", quality=QUALITY)
    elif sys.argv[1:2] == ["dreams"] and len(sys.argv) == 3:
        gallery = Image.open(sys.argv[2]).convert("RGB")
        gallery.reduce(2).save(HERE / "dreams.jpg", quality=QUALITY)
    else:
        sys.exit(__doc__)
