"""First steps that travel: out of a results folder into a file, and from a file or an address into another."""

import hashlib
import json
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

import torch

from densecl.errors import DataError, RunError
from densecl.files import atomic_path
from densecl.finished.trusted import read_run
from densecl.models.weights import reach
from densecl.runner.checkpoint import read_weights
from densecl.runner.share import FOLDER, key_of, surroundings
from densecl.tensors import checksum, is_safetensors, load_safetensors, read_tensors

AGAIN = "fetch it again from where it came"
OTHERS = "`densecl first export RUN -o FILE` writes one; weights of other code go to `densecl run --first`"
LEVELS = 4  # of folders from the results to a run


class Traveller(NamedTuple):
    """A first step in a file."""

    path: Path
    key: str
    benchmark: str
    classes: tuple[str, ...]
    sha256: str  # of the file
    fits: bool  # True if runs here with the same settings load it: equal code, libraries and machine


def export_first(run: Path, output: Path) -> Traveller:
    """Write the first step of a run to a file, with all that decided it.

    RunError if the run did not share it: its method trains step 0 in its own way, or it ran with --no-share.
    """
    wanted = checksum(read_weights(run, 0, read_run(run).hash))
    shared = Path(*run.absolute().parts[:-LEVELS]) / FOLDER
    for path in sorted(shared.glob("*.safetensors")):
        if load_safetensors(path)[1].get("sha256") == wanted:
            found = _checked(path)
            with atomic_path(output) as temporary:
                temporary.write_bytes(path.read_bytes())
            return found._replace(path=output)
    raise RunError(
        f"{shared} does not have the first step of {run}",
        "methods that train step 0 in their own way share none, nor does --no-share; see `densecl run --first`",
    )


def import_first(source: str, output: Path, sha256: str | None = None) -> Traveller:
    """Put a first step from a file, or an https address, into a results folder, where runs find it.

    DataError for a file that is none, is damaged, was changed, or is not the one with this `sha256`.
    """
    if not source.startswith(("https://", "http://")):
        return _put(Path(source).expanduser(), source, output, sha256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "first.safetensors"
        try:
            reach(source)
            urllib.request.urlretrieve(source, path)
        except (OSError, ValueError) as error:
            raise DataError(f"{source} cannot be fetched: {error}", "fetch it by hand, and import the file") from error
        return _put(path, source, output, sha256)


def _put(path: Path, source: str, output: Path, sha256: str | None) -> Traveller:
    try:
        found = _checked(path)
    except RunError as error:
        raise DataError(str(error).replace(str(path), source)) from error
    if sha256 is not None and found.sha256 != sha256.lower():
        raise DataError(f"{source} has the SHA-256 {found.sha256}, not {sha256}", AGAIN)
    place = output / FOLDER / f"{found.key}.safetensors"
    with atomic_path(place) as temporary:
        temporary.write_bytes(path.read_bytes())
    return found._replace(path=place)


def _checked(path: Path) -> Traveller:
    """Read a first step; RunError if it is none, damaged, or its key is not that of its settings."""
    if not path.is_file():
        raise RunError(f"there is no file {path}", "name a file that `densecl first export` wrote")
    metadata = load_safetensors(path, AGAIN)[1] if is_safetensors(path) else {}
    if metadata.get("kind") != "first step":
        raise RunError(f"{path} is no first step of densecl", OTHERS)
    tensors, metadata = read_tensors(path, AGAIN, kind="first step")
    content, key = metadata.get("content", ""), metadata.get("key", "")
    if not content:
        raise RunError(f"{path} does not say what decided it", "an older version made it: run again, and export it")
    try:
        told, classes = json.loads(content), tuple(map(str, json.loads(metadata["classes"])))
        float(metadata["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}", AGAIN) from error
    if key_of(content) != key:
        raise RunError(f"{path} was changed: its key is not that of its settings", AGAIN)
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise RunError(f"{path}: '{bad[0]}' is not finite", AGAIN)
    here = surroundings("cuda" if torch.cuda.is_available() else "cpu")
    fits = isinstance(told, dict) and all(told.get(part) == here[part] for part in here)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Traveller(path, key, metadata.get("benchmark", ""), classes, digest, fits)
