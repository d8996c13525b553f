"""`densecl probe`: fit a linear head on the features of each kept step, and see how much of the forgetting is theirs.

Nothing is trained. After each step one pass over the training images of all classes, with all their labels, adds up the
sums of a ridge regression in float64; its head, 1x1 with bias, then labels the test images as the method's head did.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from densecl.errors import RecordError, RunError, SettingError
from densecl.finished.evaluate import plan_of
from densecl.losses.ridge import VOID, gram, ridge
from densecl.metrics.confusion import ConfusionMatrix
from densecl.models.network import Output, upsample
from densecl.records.probed import Joint, Matrix, Probed, counts_of
from densecl.records.record import Record
from densecl.runner.build import build_scenario, restored
from densecl.runner.checkpoint import AGAIN, weights_path
from densecl.runner.evaluation import by_size, scored_positions, see
from densecl.runner.plan import Plan
from densecl.streams.samples import LoadedSample, TestSamples
from densecl.streams.scenario import Scenario
from densecl.tables.scores import segmentation
from densecl.training.loop import Loop

GAMMA = 1.0


def probe(
    folder: Path,
    *,
    joint: Path | None = None,
    gamma: float = GAMMA,
    data: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    catalogue: Path | None = None,
    **own: Any,
) -> tuple[Record, Probed]:
    """Probe all finished steps of a run, write `probe.json` into its folder, and return it with the record.

    `joint` is the folder of a joint run of the same benchmark and network: classes of later steps are compared with it
    instead of with the step that brought them. `own`: see `plan_of`.

    Raises:
        RunError: weights missing or damaged.
        SettingError: a sequence of tasks, a method that is told the step, or a gamma that is not above 0.
        RecordError: no confusion matrices, or a joint run of something else.
    """
    if not gamma > 0:
        raise SettingError(f"--gamma {gamma:g} is not above 0", "give a positive number, such as 1")
    options = {"data": data, "device": device, "catalogue": catalogue, **own}
    plan, record = _checked(Path(folder), **options)
    upper = None if joint is None else _joint(Path(joint), Path(folder), record, **{**options, "strategy": None})
    scenario, own_workers = build_scenario(plan)
    workers = own_workers if workers is None else workers
    images = _training_images(scenario)
    common: dict[str, Any] = {"images": images, "gamma": gamma, "workers": workers}
    seen = [_of_step(Path(folder), plan, record, scenario, step, **common) for step in range(len(record.steps))]
    probed = Probed(
        run=record.hash,
        gamma=gamma,
        images=len(images),
        probes=[one.probe.tolist() for one in seen],
        unused=[one.unused.tolist() for one in seen],
        taken=[one.taken.tolist() for one in seen],
        counts=counts_of(record, len(seen)),
    )
    if joint is not None and upper is not None:
        its_plan, its_record = upper
        its_scenario, _ = build_scenario(its_plan)
        matrix = _of_step(Path(joint), its_plan, its_record, its_scenario, 0, **common).probe.tolist()
        both = Joint(run=its_record.hash, head=_counts(its_record, 0), probe=matrix)
        probed = probed.model_copy(update={"joint": both})
    probed.write(Path(folder))
    return record, probed


class Seen(NamedTuple):
    """Counts of pixels of the test images; see `densecl.metrics.anatomy.pixels_of`."""

    probe: np.ndarray  # (n, n), rows the truth, columns the probe's labels
    unused: np.ndarray  # (n, n), where the probe is right, columns the labels of the method's head
    taken: np.ndarray  # (n,), where the head is wrong and the probe does not agree, by the head's label


@torch.no_grad()
def fit(loop: Loop, samples: TestSamples, classes: int, *, gamma: float, batch: int, workers: int = 0) -> Tensor:
    """The linear head (D + 1, classes) of a loop's decoded features, the last row its bias, by one pass in float64.

    Labels are brought to the features' stride by nearest neighbours; void is left out.
    """
    sums = None
    for groups in DataLoader(samples, batch_size=batch, collate_fn=by_size, num_workers=workers):
        for images, masks in groups:
            decoded = _features(see(loop, loop.stream.tasks[0], images, masks)[0])
            labels = F.interpolate(masks[:, None].float(), decoded.shape[-2:], mode="nearest-exact").long()
            places = with_one(decoded).flatten(2).transpose(1, 2)  # (B, h w, D + 1)
            added = gram(places, labels[:, 0].to(decoded.device), classes=classes)
            sums = added if sums is None else (sums[0] + added[0], sums[1] + added[1])
    assert sums is not None  # a step has images
    return ridge(*sums, gamma=gamma)


@torch.no_grad()
def look(loop: Loop, head: Tensor, samples: Dataset[LoadedSample], *, batch: int, workers: int = 0) -> Seen:
    """Compare a linear head, whose scores grow bilinearly from the features' stride, with the method's own."""
    n = head.shape[1]
    probe, unused, taken = ConfusionMatrix(n), ConfusionMatrix(n), torch.zeros(n, dtype=torch.int64)
    for groups in DataLoader(samples, batch_size=batch, collate_fn=by_size, num_workers=workers):
        for images, masks in groups:
            output, prepared = see(loop, loop.stream.tasks[0], images, masks)
            decoded, truth = _features(output), prepared.target
            scores = torch.einsum("bdhw,dc->bchw", with_one(decoded), head.to(decoded.dtype))
            found, own = upsample(scores, prepared.image).argmax(1), loop.strategy.predict(output)
            probe.update(found, truth)
            unused.update(own, torch.where(found == truth, truth, VOID))
            wrong = own[(own != truth) & (own != found) & (truth != VOID)]
            taken += torch.bincount(wrong.flatten(), minlength=n).cpu()
    return Seen(*(each.numpy() for each in (probe.matrix, unused.matrix, taken)))


def with_one(decoded: Tensor) -> Tensor:
    """(B, D, h, w) features with a channel of ones behind them."""
    return torch.cat([decoded, decoded.new_ones(len(decoded), 1, *decoded.shape[-2:])], 1)


def _features(output: Output) -> Tensor:
    """The decoded features in float32."""
    assert output.decoded is not None
    return output.decoded.float()


def _of_step(
    folder: Path,
    plan: Plan,
    record: Record,
    scenario: Scenario,
    step: int,
    *,
    images: TestSamples,
    gamma: float,
    workers: int,
) -> Seen:
    """Fit the probe of a step, and look at the test images with it."""
    loop = restored(plan, scenario, folder, step, record.hash)
    common: dict[str, Any] = {"batch": plan.settings.evaluation.batch, "workers": workers}
    head = fit(loop, images, len(record.class_names), gamma=gamma, **common)
    scored = Subset(scenario.tests[0], scored_positions(scenario, step, plan.settings.evaluation))
    return look(loop, head, scored, **common)


def _training_images(scenario: Scenario) -> TestSamples:
    """The training images of all steps, with all labels, seen as test images are."""
    indices = np.unique(np.concatenate([experience.images.indices for experience in scenario.experiences]))
    tests, reader = scenario.tests[0], scenario.training.readers[0]
    return TestSamples(reader, indices, tests.table, tests.transform)


def _checked(folder: Path, **options: Any) -> tuple[Plan, Record]:
    """The plan and record of a run whose steps can all be probed."""
    plan, record = plan_of(folder, **options)
    if record.tasks or plan.method.told:
        what = "a sequence of tasks" if record.tasks else f"{record.strategy}, which has a head for each step"
        raise SettingError(f"{folder} is a run of {what}", "probe splits the loss of classes that share one head")
    if not record.steps:
        raise RunError(f"{folder} has no finished step", "run it again")
    gone = [step for step in range(len(record.steps)) if not weights_path(folder, step).is_file()]
    if gone:
        raise RunError(f"{folder} has no weights of step {', '.join(map(str, gone))}", AGAIN)
    for step in range(len(record.steps)):
        _counts(record, step)
    return plan, record


def _images(record: Record) -> list[Any]:
    """What decides the images that a run was scored on."""
    data, evaluation = record.settings["data"], record.settings["evaluation"]
    held_out = [data.get(key) for key in ("name", "validation", "validation_seed")]
    return [*held_out, evaluation.get("size"), evaluation.get("images", "all")]


def _counts(record: Record, step: int) -> Matrix:
    scored = segmentation(record.steps[step])
    if scored is None or scored.confusion is None:
        raise RecordError(f"the record has no confusion matrix of step {step}", "run it again with --fresh")
    return scored.confusion


def _joint(folder: Path, run: Path, record: Record, **options: Any) -> tuple[Plan, Record]:
    """The plan and record of the joint run to compare with."""
    plan, other = _checked(folder, **options)
    if not plan.method.joint or other.status != "finished":
        raise SettingError(f"--joint {folder} is no finished run of joint", "name the folder of one")
    mine, theirs = (
        (one.benchmark, one.class_names, one.planned_steps, one.backbone, one.settings.get("backbone_values"))
        for one in (record, other)
    )
    if mine != theirs:
        raise SettingError(f"--joint {folder} has other classes or another network than {run}", "name one like it")
    if _images(record) != _images(other):
        raise SettingError(f"--joint {folder} was scored on other images than {run}", "name one like it")
    return plan, other
