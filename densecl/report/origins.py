"""Settings and provenance of the runs of a row: what all runs share, and what distinguishes them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densecl.records.record import Found, Record, flatten
from densecl.report.gather import Member
from densecl.terminal import humanise

DEPTH = 4  # folders that name a run: benchmark, strategy, backbone, seed; those above depend on the machine


class Run(NamedTuple):
    """One run of a row."""

    seed: int
    status: str
    hash: str
    folder: str
    time: str
    memory: str  # MiB, the peak of all steps


class Provenance(NamedTuple):
    """A row's runs; of a key whose values differ, all are listed with their seeds."""

    member: Member
    runs: tuple[Run, ...]
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]


def provenance(member: Member) -> Provenance:
    """Where the numbers of a row come from."""
    settings = [(r.seed, {k: v for k, v in flatten(r.settings).items() if k != "seed"}) for r in member.records]
    environment = [(r.seed, {"densecl": r.densecl, **flatten(r.environment), **_foreign(r)}) for r in member.records]
    return Provenance(member, tuple(map(_run, member.runs)), _merged(settings), _merged(environment))


def _foreign(record: Record) -> dict[str, Any]:
    """Declarations of the author of another code."""
    return {} if record.foreign is None else flatten(record.foreign.model_dump(), "foreign.")


def _run(run: Found) -> Run:
    record = run.record
    peak = max((step.peak_memory or 0 for step in record.steps), default=0)
    status = record.status + (", first step loaded" if record.steps and record.steps[0].shared else "")
    time = humanise(sum(step.seconds for step in record.steps))
    folder = "/".join(run.path.parent.parts[-DEPTH:])
    return Run(record.seed, status, record.hash, folder, time, f"{peak / 2**20:.0f}" if peak else "–")


def _merged(trees: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[tuple[str, str], ...]:
    """Key and text of all trees; `seed 0: a; seed 1: b` where seeds differ."""
    merged = []
    for key in dict.fromkeys(key for _, tree in trees for key in tree):
        texts = [(seed, _text(tree[key])) for seed, tree in trees if key in tree]
        same = len({text for _, text in texts}) == 1 and len(texts) == len(trees)
        merged.append((key, texts[0][1] if same else "; ".join(f"seed {seed}: {text}" for seed, text in texts)))
    return tuple(merged)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
