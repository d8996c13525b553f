"""`probe.json` beside a record: what a linear head fitted on the features of each kept step sees in the test images."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densecl.errors import RecordError
from densecl.files import write_text
from densecl.records.record import Pixels, Record
from densecl.settings.faults import first_fault, one_line

SCHEMA = 1
FILE_NAME = "probe.json"
Matrix = list[list[Pixels]]  # rows: true labels; columns: predictions


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Joint(_Model):
    """The joint run that classes of later steps are compared with."""

    run: str  # its hash
    head: Matrix
    probe: Matrix


class Probed(_Model):
    """The probe of a run."""

    kind: str = "probe"
    schema_version: int = SCHEMA
    run: str  # hash of the run
    gamma: Annotated[float, Field(gt=0)]  # of the ridge regression
    images: int  # that the probe was fitted on
    probes: list[Matrix]  # after each step, over all labels of the stream
    unused: list[Matrix]  # pixels that the probe labels right, by what the run's head says
    taken: list[list[Pixels]]  # pixels of other classes that the run's head alone calls a class
    joint: Joint | None = None
    counts: str | None = None  # `counts_of` the record; None: written before there was this

    def write(self, folder: Path) -> Path:
        """Write it beside the record of its run, whole or not at all."""
        path = folder / FILE_NAME
        write_text(path, json.dumps(self.model_dump()) + "\n")
        return path


def counts_of(record: Record, steps: int) -> str:
    """Hash over the confusion matrices of the first steps of a run."""
    matrices = [[scored.confusion for scored in step.evaluations] for step in record.steps[:steps]]
    return hashlib.sha256(json.dumps(matrices).encode()).hexdigest()[:16]


def read_probed(folder: Path, record: Record) -> Probed | None:
    """The probe of the run in a folder; None where it was not probed.

    Raises:
        RecordError: the file cannot be read, or is of another run.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        probed = Probed.model_validate(json.loads(path.read_text(encoding="utf-8")), strict=True)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise RecordError(f"{path}: {first_fault(error, Probed)}", "probe the run again") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON: {one_line(error)}", "probe the run again") from error
    if (probed.kind, probed.schema_version) != ("probe", SCHEMA):
        raise RecordError(f"{path} is no probe of this version", "probe the run again")
    steps = {len(probed.probes), len(probed.unused), len(probed.taken)}
    if probed.run != record.hash or len(steps) > 1 or max(steps) > len(record.steps):
        raise RecordError(f"{path} is of another run", "probe the run again")
    if probed.counts not in (None, counts_of(record, max(steps))):
        raise RecordError(f"{path} is of the run before it was trained again", "probe the run again")
    count = len(record.class_names)
    matrices = [*probed.probes, *probed.unused, probed.taken]
    matrices += [] if probed.joint is None else [probed.joint.head, probed.joint.probe]
    square = (len(matrix) == count or matrix is probed.taken for matrix in matrices)
    if not all(square) or any(len(row) != count for matrix in matrices for row in matrix):
        raise RecordError(f"{path} has matrices of other than {count} classes", "probe the run again")
    return probed
