"""Settings and provenance of the runs of a row: what all share, and what tells them apart."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densecl.records.record import Found, Record, flatten
from densecl.report.gather import Member
from densecl.tables.forms.text import humanise

MIB = 2**20
DEPTH = 4  # folders that name a run: benchmark, strategy, backbone, seed; what is above is the machine's


class Run(NamedTuple):
    """One run of a row."""

    seed: int
    status: str
    hash: str
    folder: str
    time: str
    memory: str  # MiB, of the step that took most


class Provenance(NamedTuple):
    """A row's runs; of a key whose values differ, all are listed with their seeds."""

    member: Member
    runs: tuple[Run, ...]
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]


def provenance(member: Member) -> Provenance:
    """Where the numbers of a row come from."""
    records = member.records
    settings = _merged([(r.seed, {k: v for k, v in flatten(r.settings).items() if k != "seed"}) for r in records])
    own = [(r.seed, {"densecl": r.densecl, **flatten(r.environment)}) for r in records]
    return Provenance(member, tuple(map(_run, member.runs)), settings, _merged(own))


def _run(found: Found) -> Run:
    record = found.record
    seconds = sum(step.seconds for step in record.steps)
    peak = max((step.peak_memory or 0 for step in record.steps), default=0)
    status = record.status + _first_step(record)
    memory = f"{peak / MIB:.0f}" if peak else "–"
    return Run(record.seed, status, record.hash, "/".join(found.path.parent.parts[-DEPTH:]), humanise(seconds), memory)


def _first_step(record: Record) -> str:
    return ", first step loaded" if record.steps and record.steps[0].shared else ""


def _merged(trees: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[tuple[str, str], ...]:
    """Key and text, in the order of the keys of the first; `0: a, 1: b` where seeds differ."""
    keys = dict.fromkeys(key for _, tree in trees for key in tree)
    merged = []
    for key in keys:
        texts = [(seed, _text(tree[key])) for seed, tree in trees if key in tree]
        distinct = dict.fromkeys(text for _, text in texts)
        same = len(distinct) == 1 and len(texts) == len(trees)
        merged.append((key, texts[0][1] if same else "; ".join(f"seed {seed}: {text}" for seed, text in texts)))
    return tuple(merged)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
