"""Quality of the synthetic images of a run: as its record has it, and as an independent network sees them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl.data.places import cache_folder
from densecl.errors import RecordError, SettingError
from densecl.finished.trusted import read_run

if TYPE_CHECKING:
    from densecl.models.network import Network
    from densecl.records.record import Record


def kept_network(folder: Path, step: int, **own: Any) -> "tuple[Network, Record]":
    """The network of a run after a finished step, on the CPU and in evaluation mode, and the run's record.

    Raises:
        RecordError: no such run, or a class in it that `own` does not name again, see `trusted_settings`.
        SettingError: it has not finished that step. RunError: weights missing or damaged.
    """
    from densecl.finished.evaluate import plan_of
    from densecl.runner.build import recorded_stream, restored

    plan, record = plan_of(folder, device="cpu", **own)
    if not 0 <= step < len(record.steps):
        raise SettingError(f"{folder} has not finished step {step}", "run it again")
    return restored(plan, recorded_stream(plan, record), folder, step, record.hash).network.eval(), record


def banks_of(record: "Record") -> list[dict[str, Any]]:
    """The banks that a run replayed, each once, in the order of their making.

    Raises:
        SettingError: it replayed no synthetic images.
    """
    noted = [note.get("banks") for step in record.steps for note in step.notes.values()]
    banks = {bank["key"]: bank for group in noted if isinstance(group, list) for bank in group if _is_bank(bank)}
    if not banks:
        raise SettingError(f"the run of {record.strategy} replayed no synthetic images", "name one of +deepinversion")
    return list(banks.values())


def _is_bank(note: Any) -> bool:
    """True for a note that describes a bank; controls have none, and a record must not lead out of the cache."""
    kinds = {"key": str, "hash": str, "step": int, "labels": list}
    described = isinstance(note, dict) and all(isinstance(note.get(key), kind) for key, kind in kinds.items())
    return described and re.fullmatch("[0-9a-f]+", note["key"]) is not None


def judged(folder: Path, judge: Path | None = None, **own: Any) -> list[dict[str, Any]]:
    """The banks of a run with their figures and, given another run of the benchmark, the agreement of its network.

    That run, `judge`, has another seed: its network was trained on the same real data up to the same step, and must
    know the same classes. `own`: see `kept_network`.

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
        teacher, _ = kept_network(folder, before, **own)
        other, theirs = kept_network(judge, before, **own)
        if theirs.class_names[: other.n_outputs] != record.class_names[: teacher.n_outputs]:
            raise SettingError(f"{judge} knows other classes after step {before}", "name a run of the same benchmark")
        faults: list[str] = []
        loaded = load_bank(cache_folder() / "banks" / bank["key"], bank["hash"], faults.append)
        if loaded is None:
            raise RecordError(faults[0])
        figures = agreement(loaded.images, loaded.targets, teacher, other, mean, std)
        result.append({**bank, "agreement": {key: round(value, 4) for key, value in figures._asdict().items()}})
    return result
