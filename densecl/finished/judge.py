"""Quality of the synthetic images of a run: as its record has it, and as an independent network sees them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl.data.places import cache_folder
from densecl.errors import RecordError, SettingError
from densecl.finished.trusted import read_run, trusted_settings

if TYPE_CHECKING:
    from densecl.models.network import Network
    from densecl.records.record import Record


def kept_network(folder: Path, step: int) -> "tuple[Network, Record]":
    """The network of a run after a finished step, on the CPU and in evaluation mode, and the run's record.

    Raises:
        RecordError: no such run. SettingError: it has not finished that step. RunError: weights missing or damaged.
    """
    from densecl.runner.build import build_network
    from densecl.runner.checkpoint import load_weights
    from densecl.settings.recipe import RunSettings, build

    record = read_run(folder)
    if not 0 <= step < len(record.steps):
        raise SettingError(f"{folder} has not finished step {step}", "run it again")
    body = {key: record.settings.get(key) for key in ("backbone", "backbone_values")}
    trusted_settings(record.model_copy(update={"settings": body}), folder)  # the method's own code is not needed
    settings = build(RunSettings, record.settings, "settings")
    if "weights" in settings.backbone_values:  # the kept weights replace them: do not download
        values = {**settings.backbone_values, "weights": "none"}
        settings = settings.model_copy(update={"backbone_values": values})
    network = build_network(settings)
    for number, finished in enumerate(record.steps[: step + 1]):
        network.grow(len(finished.new_classes) + (number == 0))
    load_weights(network, folder, step)
    return network.eval(), record


def banks_of(record: "Record") -> list[dict[str, Any]]:
    """The banks that a run replayed, each once, in the order of their making.

    Raises:
        SettingError: it replayed no synthetic images.
    """
    notes = [note for step in record.steps for note in step.notes.values()]
    banks = {bank["key"]: bank for note in notes for bank in note.get("banks", ()) if "key" in bank}
    if not banks:
        raise SettingError(f"the run of {record.strategy} replayed no synthetic images", "name one of +deepinversion")
    return list(banks.values())


def judged(folder: Path, judge: Path | None = None) -> list[dict[str, Any]]:
    """The banks of a run with their figures and, given another run of the benchmark, the agreement of its network.

    Args:
        folder: of the run.
        judge: of a run with another seed, whose network was trained on the same real data up to the same step; it must
            know the same classes.

    Raises:
        RecordError, SettingError, RunError: see `kept_network` and `banks_of`; a bank that is no longer there.
    """
    record = read_run(folder)
    banks = banks_of(record)
    if judge is None:
        return banks
    import torch

    from densecl.inversion import agreement, load_bank

    mean, std = (torch.tensor(record.settings["data"][name]).view(3, 1, 1) for name in ("mean", "std"))
    result = []
    for bank in banks:
        before = bank["step"] - 1
        teacher, _ = kept_network(folder, before)
        other, theirs = kept_network(judge, before)
        if theirs.class_names[: other.n_outputs] != record.class_names[: teacher.n_outputs]:
            raise SettingError(f"{judge} knows other classes after step {before}", "name a run of the same benchmark")
        faults: list[str] = []
        loaded = load_bank(cache_folder() / "banks" / bank["key"], bank["hash"], faults.append)
        if loaded is None:
            raise RecordError(faults[0])
        figures = agreement(loaded.images, loaded.targets, teacher, other, mean, std)
        result.append({**bank, "agreement": {key: round(value, 4) for key, value in figures._asdict().items()}})
    return result
