"""`densecl export RUN --predictions OUT`: the predictions of a run as the label maps that `densecl score` reads."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from densecl.errors import RunError, SettingError
from densecl.files import write_error
from densecl.finished.about import FILE_NAME
from densecl.finished.evaluate import finished_step, plan_of
from densecl.finished.label_maps import ids_of, map_name
from densecl.records.record import Record, flatten, plain
from densecl.runner.build import build_scenario, restored
from densecl.runner.evaluation import by_size, scored_positions, see
from densecl.runner.plan import Plan, make_plan
from densecl.settings.grammar import Call, format_call, format_value
from densecl.streams.samples import LoadedSample
from densecl.training.loop import Loop


class Exported(NamedTuple):
    """Label maps that were written, and the command that scores them."""

    folder: Path
    maps: int
    command: str


def export_predictions(
    folder: Path,
    output: Path,
    *,
    step: int | None = None,
    ids: str = "data",
    data: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    catalogue: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **own: Any,
) -> Exported:
    """Write the label maps of a run's test images after each finished step, or one, and an `about.toml`.

    They have the size that the run evaluates, in grey PNGs. The folder is whole or absent. `ids` are those of
    `densecl score`; for `own` see `plan_of`.

    Raises:
        SettingError: a sequence of tasks, or a method that is told the step: an image has no single label map there.
        RunError: the folder exists, or cannot be written.
    """
    plan, record = plan_of(Path(folder), data, device, catalogue, **own)
    if record.tasks or plan.method.told:
        why = "is a sequence of tasks" if record.tasks else f"is of {record.strategy}, which is told the step"
        raise SettingError(f"{folder} {why}: an image has a label map for each", "export a run with one head")
    steps = [*range(finished_step(folder, record, step) + 1)] if step is None else [finished_step(folder, record, step)]
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output} exists", "name a new folder with --predictions")
    scenario, own_workers = build_scenario(plan)
    samples, stream = scenario.tests[0], scenario.stream
    table = ids_of(ids, samples.reader, samples, stream)
    total, done = len(steps) * len(samples), 0
    with _whole(output) as temporary:
        for k in steps:
            loop = restored(plan, scenario, Path(folder), k, record.hash)
            positions = scored_positions(scenario, k, plan.settings.evaluation)
            for group, labels in _predicted(loop, k, positions, plan, own_workers if workers is None else workers):
                for sample, predicted in zip(group, table.of(labels.numpy()), strict=True):
                    path = temporary / f"step{k}" / map_name(samples.reader.ids[sample.index])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(predicted).save(path, format="PNG", compress_level=1)
                done += len(group)
                if progress is not None:
                    progress(done, total)
        (temporary / FILE_NAME).write_text(_about(record), encoding="utf-8")
    return Exported(output, done, _command(plan, output, ids, step, catalogue))


def _predicted(
    loop: Loop, step: int, positions: Iterable[int], plan: Plan, workers: int
) -> Iterator[tuple[list[LoadedSample], torch.Tensor]]:
    """Samples and labels (B, H, W) of the test images, in the batches of the run's evaluation."""
    loop.strategy.select_task(step)
    own, batch = Subset(loop.scenario.tests[0], [*positions]), plan.settings.evaluation.batch
    labels = torch.tensor(loop.stream.labels_of(step))
    for loaded in DataLoader(own, batch_size=batch, collate_fn=list, num_workers=workers):
        sizes: dict[tuple[int, ...], list[LoadedSample]] = {}
        for sample in loaded:
            sizes.setdefault(tuple(sample.target.shape), []).append(sample)
        for group, (images, masks) in zip(sizes.values(), by_size(loaded), strict=True):
            output, _ = see(loop, loop.stream.tasks[step], images, masks)
            with torch.no_grad():
                yield group, labels[loop.strategy.predict(output).cpu().long()]


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A folder that takes the place of `output` when it is complete; after any exception nothing is left."""
    temporary: Path | None = None
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.absolute().parent))
        yield temporary
        temporary.chmod(0o755)
        if output.exists():
            output.rmdir()
        os.rename(temporary, output)  # noqa: PTH104 (Path.rename gives a new path)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise write_error(output, error) from error
        raise


def _about(record: Record) -> str:
    """Write what the run's record says as its author would declare it."""
    training = {k: v for k, v in flatten(record.settings.get("training", {})).items() if v is not None}
    network = format_call(Call(record.backbone, record.settings.get("backbone_values", {})))
    oracle = {"known_classes": record.oracle == "classes", "told_step": False}
    lines = [f'method = "{record.strategy}"', f"network = {_toml(network)}" if len(network) <= 200 else ""]
    lines += [f"seed = {record.seed}", f'code = "densecl {record.densecl}"', 'checkpoint = "last"']
    lines += [f"{key} = {_toml(value)}" for key, value in oracle.items()]
    return (
        "\n".join(
            [line for line in lines if line] + ["", "[training]"] + [f"{k} = {_toml(v)}" for k, v in training.items()]
        )
        + "\n"
    )


def _toml(value: Any) -> str:
    """A setting as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _command(plan: Plan, output: Path, ids: str, step: int | None, catalogue: Path | None) -> str:
    """`densecl score OUT -b NAME`, with the settings by which the run's scores differ from the benchmark's."""
    s = plan.settings
    usual = make_plan(s.benchmark, "finetune", catalogue=catalogue, device="cpu").settings
    words = ["densecl", "score", shlex.quote(str(output)), "-b", s.benchmark]
    for section in ("data", "stream", "evaluation"):
        ours, theirs = (flatten(plain(getattr(each, section).model_dump(mode="json"))) for each in (s, usual))
        for key, value in ours.items():
            natural = key == "order" and isinstance(value, list) and value == sorted(value)
            if key not in ("root", "validation") and value != theirs.get(key) and not natural:
                text = format_value(tuple(value) if isinstance(value, list) else value)
                words += ["--set", shlex.quote(f"{section}.{key}={text}")]
    words += [f"--validation {s.data.validation}"] * bool(s.data.validation)
    words += [f"--ids {ids}"] * (ids != "data") + [f"--step {step}"] * (step is not None)
    return " ".join(words)
