"""`densecl score`: a record from label maps that any code wrote, or from a network of another code."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.data.class_index import for_each
from densecl.data.transforms import resize_labels
from densecl.errors import SettingError
from densecl.finished.about import FILE_NAME as ABOUT
from densecl.finished.about import About, read_about, refuse_missing
from densecl.finished.evaluate import Scored
from densecl.finished.foreign_network import ForeignNetwork, batches, load_network
from densecl.finished.foreign_record import Tally, foreign_record, record_folder
from densecl.finished.label_maps import Faults, Ids, MapFault, ids_of, map_files, read_map, step_folders
from densecl.metrics.confusion import count_pairs
from densecl.records.layout import UPPER_BOUND, clean, main_name
from densecl.records.record import FILE_NAME
from densecl.runner.build import build_scenario
from densecl.runner.evaluation import scored_positions
from densecl.runner.plan import Plan, make_plan
from densecl.streams.samples import TestSamples, remap
from densecl.streams.scenario import Scenario

Progress = Callable[[int, int], None]
RESIZE = "nearest"


class ForeignScore(NamedTuple):
    """The record of foreign predictions, its file, and the scores of its last step."""

    path: Path
    scored: Scored


def score(
    predictions: str | Path,
    benchmark: str,
    *,
    step: int | None = None,
    name: str | None = None,
    about: Path | None = None,
    ids: str | None = None,
    resize: str | None = None,
    seed: int | None = None,
    output: Path = Path("results"),
    device: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ForeignScore:
    """Score another code's predictions by the rules of a benchmark, and write their record.

    Args:
        predictions: a folder of label maps (see `densecl.finished.label_maps`), or `load.py:Network`, whose function or
            class is called with each step and gives a torch module from normalised images to logits.
        benchmark: such as `voc15-5s` or `voc15-5s(size=full)`.
        step: score this one alone.
        name: the method, as tables call it.
        about: what its author declares; by default `about.toml` in the folder, if there is one.
        ids: `data`, those of the data set's masks (default), or `stream`, labels in order of arrival.
        resize: `nearest` allows label maps of another size than their masks.
        seed: of the predictions' training.
        output: folder for results.
        device: of a network.
        workers: processes that load the images of a network.
        progress: hears (images done, images).
        **options: `assignments`, `data`, `validation`, `catalogue` of `densecl.runner.plan.make_plan`.

    Raises:
        DenseCLError: bad input, named, of all label maps at once; then nothing is written.
    """
    refuse_missing(predictions)
    network = load_network(str(predictions)) if ".py:" in str(predictions) else None
    folder = None if network else Path(predictions)
    place = about or (folder / ABOUT if folder and (folder / ABOUT).is_file() else None)
    declared = read_about(place) if place else About()
    method = _method_name(name or declared.method, network)
    if resize not in (None, RESIZE):
        raise SettingError(f"--resize {resize}: unknown way", f"known: {RESIZE}")
    if ids is not None and declared.ids:
        raise SettingError(f"--ids {ids}, and {place} has [ids]", "leave one of them out")
    joint = main_name(method) == UPPER_BOUND
    seed = (declared.seed or 0) if seed is None else seed
    plan = make_plan(
        benchmark, "joint" if joint else "finetune", seed=seed, output=output, device=device, workers=workers, **options
    )
    if plan.settings.stream.kind == "tasks":
        raise SettingError(f"{plan.settings.benchmark} is a sequence of tasks", "score a stream of classes")
    count = 1 if joint else len(plan.steps)
    folders = step_folders(folder, count, step) if folder else {}
    if network and step is not None and step >= count:
        raise SettingError(f"--step {step}: the stream has steps 0 to {count - 1}")
    scenario, loaders = build_scenario(plan)
    samples = scenario.tests[0]
    table = ids_of(ids or "data", samples.reader, samples, scenario.stream, declared.ids)
    steps = [*folders] if folder else [*range(count)] if step is None else [step]
    needed = {k: scored_positions(scenario, k, plan.settings.evaluation) for k in steps}
    if network:
        tally = _of_network(network, plan, scenario, table, needed, resize, loaders, progress)
    else:
        assert folder is not None
        palettes = bool(declared.ids)
        tally = _of_maps(folder, folders, scenario, table, needed, resize, palettes, progress)
    record = foreign_record(plan, scenario, tally, method, declared, network)
    path = record_folder(output, record) / FILE_NAME
    record.write(path)
    done = record.steps[-1]
    return ForeignScore(path, Scored(done.evaluations[0], done.step, record))


def _method_name(name: str | None, network: ForeignNetwork | None) -> str:
    """The method as tables call it."""
    name = name or (network.text.rpartition(":")[2] if network else None)
    if name is None:
        raise SettingError("the method has no name", "give --name, or 'method' in about.toml")
    if not name.strip() or clean(name) != name or len(name) > 80:
        raise SettingError(f"--name {clean(name)[:80]!r} cannot name a method", "use up to 80 printable characters")
    return name.strip()


# ---- label maps


def _of_maps(
    folder: Path,
    folders: Mapping[int, Path],
    scenario: Scenario,
    table: Ids,
    needed: Mapping[int, Sequence[int]],
    resize: str | None,
    palettes: bool,
    progress: Progress | None,
) -> Tally:
    """Read every label map once; what is wrong with any of them is said together, at the end."""
    samples, stream, faults = scenario.tests[0], scenario.stream, Faults(folder)
    legal = {k: table.after(stream, k) for k in folders}
    files: dict[int, dict[int, Path]] = {}
    for k, place in folders.items():
        prefix = "" if place == folder else f"{place.name}/"
        indices = [int(samples.indices[position]) for position in needed[k]]
        files[k] = map_files(place, samples.reader, indices, prefix, faults)
    used = sorted(set().union(*needed.values()))
    counts = _Counts(len(stream.class_names), folders, len(samples))

    def read(number: int) -> None:
        position = used[number]
        index = int(samples.indices[position])
        paths = {k: of_step[index] for k, of_step in files.items() if index in of_step}
        if not paths or faults.many():
            return
        whole = remap(torch.from_numpy(samples.reader.read_mask(index)), samples.table)  # (H, W)
        truth = _evaluated(whole, samples)
        for k, path in paths.items():
            try:
                labels = torch.from_numpy(read_map(path, legal[k], any_palette=palettes))
                resized = labels.shape not in (truth.shape, whole.shape)
                if resized and resize is None:
                    sizes = [f"{width}x{height}" for height, width in (labels.shape, whole.shape)]
                    raise MapFault("size", f"is {sizes[0]}, its mask {sizes[1]}: --resize nearest allows it")
            except MapFault as fault:
                faults.add(fault.kind, [f"{path.relative_to(folder).as_posix()} {fault}"])
                continue
            labels = resize_labels(labels, whole.shape) if resized else labels
            labels = labels if labels.shape == truth.shape else _evaluated(labels, samples)
            counts.add(k, position, labels, truth, resized)

    for_each(read, len(used), progress=progress)
    faults.check()
    return counts.tally()


def _evaluated(labels: Tensor, samples: TestSamples) -> Tensor:
    """Labels (H, W) of a whole image as the benchmark evaluates them: resized and cut like its mask."""
    if samples.transform is None:
        return labels
    return samples.transform(labels[None], labels, np.random.default_rng(0))[1]


class _Counts:
    """Confusion matrices and digests, filled by several threads."""

    def __init__(self, classes: int, steps: Mapping[int, Any], images: int):
        self._lock = threading.Lock()
        self._n, self._resized = classes, 0
        self._matrices = {k: np.zeros((classes, classes), np.int64) for k in steps}
        self._digests = {k: np.zeros((images, 16), np.uint8) for k in steps}

    def add(self, step: int, position: int, labels: Tensor, truth: Tensor, resized: bool = False) -> None:
        """Count an image's labels (H, W) against the truth."""
        pairs = count_pairs(labels, truth, self._n, 255).numpy()
        content = labels.contiguous().numpy()
        digest = hashlib.blake2b(content.tobytes(), digest_size=16, key=repr(content.shape).encode())
        with self._lock:
            self._matrices[step] += pairs
            self._digests[step][position] = np.frombuffer(digest.digest(), np.uint8)
            self._resized += resized

    def tally(self) -> Tally:
        """All that was counted."""
        digest = hashlib.sha256()
        for k in sorted(self._digests):
            digest.update(f"{k}\n".encode() + self._digests[k].tobytes())
        return Tally(self._matrices, digest.hexdigest(), self._resized)


# ---- networks


def _of_network(
    network: ForeignNetwork,
    plan: Plan,
    scenario: Scenario,
    table: Ids,
    needed: Mapping[int, Sequence[int]],
    resize: str | None,
    workers: int,
    progress: Progress | None,
) -> Tally:
    """Evaluate a network after each step on the test samples."""
    samples, stream, device = scenario.tests[0], scenario.stream, torch.device(plan.settings.device)
    counts, done, total = _Counts(len(stream.class_names), needed, len(samples)), 0, sum(map(len, needed.values()))
    places = {int(index): position for position, index in enumerate(samples.indices)}
    for k, positions in needed.items():
        legal, module = table.after(stream, k), network.at(k, device)
        for group, images in batches(
            samples, positions, plan.settings.evaluation.batch, workers, scenario.normalisation
        ):
            first = samples.reader.ids[group[0].index]
            ids = network.ids(module, images.to(device), f"at step {k} on {first}")
            if wrong := legal.illegal(ids):
                raise SettingError(f"{network.text} at step {k} on {first} {wrong}", "see --ids")
            if ids.shape[1:] != images.shape[2:] and resize is None:
                seen, given = ("x".join(map(str, reversed(shape))) for shape in (images.shape[2:], ids.shape[1:]))
                fault = f"{network.text} at step {k}: images are {seen}, its logits {given}"
                raise SettingError(fault, "scale the logits to the image, or allow it with --resize nearest")
            for sample, own in zip(group, ids, strict=True):
                labels = torch.from_numpy(table.labels[own].astype(np.uint8))
                resized = labels.shape != sample.target.shape
                labels = resize_labels(labels, sample.target.shape) if resized else labels
                counts.add(k, places[sample.index], labels, sample.target, resized)
            done += len(group)
            if progress is not None:
                progress(done, total)
    return counts.tally()
