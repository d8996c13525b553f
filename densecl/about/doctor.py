"""`densecl doctor`: is everything here that a run needs? No network is used and nothing is changed."""

import contextlib
import importlib
import importlib.metadata as metadata
import io
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from densecl import __version__
from densecl.errors import DenseCLError, first_line

ESSENTIAL = ("torch", "torchvision", "timm", "avalanche.core")  # packages with binaries that may not fit
SHOWN = ("torch", "torchvision", "timm", "avalanche-lib", "numpy", "pillow", "safetensors", "pydantic", "typer", "rich")
EXTRAS = {"tensorboard": "densecl run --tensorboard", "wandb": "densecl run --wandb"}
DRIVER = Path("/proc/driver/nvidia")  # exists where a GPU's driver is installed
QUICK = ("packages", "extras", "folders")  # parts that import neither torch nor numpy
LITTLE = 2 << 30  # bytes of free disk that a run may soon fill


class Finding(NamedTuple):
    """One observation: `text` says what is there, `advice` what to do."""

    level: Literal["ok", "note", "problem", "error"]  # note: missing, but few runs need it; error: nothing can be run
    text: str
    advice: str = ""
    part: str = ""


def examine(data: Path | None = None, catalogue: Path | None = None, quick: bool = False) -> list[Finding]:
    """Findings about packages, devices, recipes, data sets, weights and folders; nothing is raised.

    `quick` looks at versions and folders alone, which needs no large import.
    """
    looks = [
        ("packages", packages, (not quick,)),
        ("extras", extras, ()),
        ("devices", devices, ()),
        ("recipes", recipes, (catalogue,)),
        ("data sets", data_sets, (data, catalogue)),
        ("weights", weights, (catalogue,)),
        ("folders", folders, (data,)),
    ]
    if quick:
        looks = [look for look in looks if look[0] in QUICK]
    findings: list[Finding] = []
    for part, look, arguments in looks:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:  # whatever is broken here, the other parts can still be examined
                findings += [finding._replace(part=part) for finding in look(*arguments)]
            except Exception as error:
                text = f"cannot be looked at: {type(error).__name__}: {first_line(error)}"
                findings.append(Finding("problem", text, "see what is said of the other parts", part))
    return findings


# ---- packages


def packages(imports: bool = True) -> Iterator[Finding]:
    """Python and required packages: their versions, and with `imports` whether they can be imported."""
    python = platform.python_version()
    wanted = SpecifierSet(metadata.metadata("densecl")["Requires-Python"] or "" if _version("densecl") else "")
    if python in wanted:
        yield Finding("ok", f"densecl {__version__}, Python {python}")
    else:
        yield Finding("error", f"Python {python}, densecl needs {wanted}", "make an environment with another Python")
    yield Finding("ok", ", ".join(f"{name} {installed}" for name in SHOWN if (installed := _version(name))))
    for requirement in _requirements("densecl"):
        if fault := unmet(requirement, _version(requirement.name)):
            yield Finding("error", fault, f"pip install '{requirement.name}{requirement.specifier}'")
    yield from pair(_version("torch"), _version("torchvision"), _requirements("torchvision"))
    for name in ESSENTIAL if imports else ():
        try:
            importlib.import_module(name)
        except Exception as error:  # an extension that does not fit raises OSError or RuntimeError
            advice = f"pip install --force-reinstall {name.partition('.')[0].replace('avalanche', 'avalanche-lib')}"
            yield Finding("error", f"import {name} fails: {first_line(error)}", advice)


def pair(torch: str | None, torchvision: str | None, requirements: list[Requirement]) -> Iterator[Finding]:
    """Versions of torch and torchvision that were not built for each other; `requirements` are torchvision's."""
    if torch is None or torchvision is None:
        return
    needed = [each.specifier for each in requirements if each.name == "torch" and unmet(each, torch)]
    texts = [f"torchvision {torchvision} needs torch{which}, and torch {torch} is installed" for which in needed]
    if len({Version(each).local for each in (torch, torchvision)} - {None}) > 1:
        texts.append(f"torch {torch} and torchvision {torchvision} are builds for different devices")
    advice = "install both from one index: pip install --upgrade torch torchvision"
    yield from (Finding("problem", text, advice) for text in texts)


def extras() -> Iterator[Finding]:
    """Packages that single options need."""
    for name, use in EXTRAS.items():
        if installed := _version(name):
            yield Finding("ok", f"{name} {installed}, for {use}")
        else:
            yield Finding("note", f"{name} is not installed (for {use})", f"pip install 'densecl[{name}]'")


def unmet(requirement: Requirement, installed: str | None) -> str:
    """Name the fault of the installed version of a requirement; empty if there is none."""
    if installed is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} {installed} is installed, {requirement.specifier} is needed"


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _requirements(name: str) -> list[Requirement]:
    """Requirements of a distribution without its extras; none if it is not installed, as in a checkout."""
    parsed = map(Requirement, metadata.requires(name) or [] if _version(name) else [])
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


# ---- the machine


def devices() -> Iterator[Finding]:
    """GPUs with their memory, Apple's GPU, and the CPU."""
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Finding("ok", f"cuda:{index}: {device.name}, {memory}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available() and (DRIVER.exists() or shutil.which("nvidia-smi")):
        here, cuda = f"a GPU is here, but torch {torch.__version__}", torch.version.cuda
        text = f"{here} (CUDA {cuda}) cannot use it" if cuda else f"{here} is a build without CUDA"
        advice = "look at nvidia-smi: is the driver new enough for this CUDA?" if cuda else "see pytorch.org"
        yield Finding("problem", text, advice)
    if torch.backends.mps.is_available():
        yield Finding("ok", "mps: Apple's GPU; nobody has tried densecl on it")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limited = f" (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']})" if "OMP_NUM_THREADS" in os.environ else ""
    threads = f"torch computes with {torch.get_num_threads()} threads{limited}"
    yield Finding("ok", f"cpu: {usable} core{'s' * (usable > 1)}, {threads}")


def folders(data: Path | None = None) -> Iterator[Finding]:
    """Folders of derived files, data and results: can they be written, and how much room is there?"""
    from densecl.data.places import cache_folder, data_folder

    places = {
        f"cache {cache_folder()} ({_size(cache_folder())})": (cache_folder(), "DENSECL_CACHE"),
        f"data {data or data_folder()}": (Path(data or data_folder()), "--data or DENSECL_DATA"),
        f"results {Path('results').absolute()}": (Path("results"), "--output"),
    }
    for name, (folder, option) in places.items():
        existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(existing).free
        room = f"{name}: {free / 2**30:.1f} GiB free"
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            read_only = name.startswith("data")  # data may lie in a folder that is
            level, advice = ("note", "") if read_only else ("problem", f"choose another with {option}")
            yield Finding(level, f"{name} cannot be written", advice)
        elif free < LITTLE:
            yield Finding("problem", room, f"free some, or choose another place with {option}")
        else:
            yield Finding("ok", room)
    asked = os.environ.get("DENSECL_DATA")
    if asked and not Path(asked).expanduser().is_dir():
        yield Finding("problem", f"DENSECL_DATA={asked}: there is no such folder", "correct the variable")


def _size(folder: Path) -> str:
    """Size of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (a fifth of the time)
    return f"{total / 2**20:.0f} MiB" if total < 10 << 30 else f"{total / 2**30:.0f} GiB"


# ---- recipes, data sets, weights


def recipes(catalogue: Path | None = None) -> Iterator[Finding]:
    """Recipes: can all of them be read?"""
    from densecl.settings import catalogue as recipe_folders

    try:
        families = [*recipe_folders.benchmark_recipes(catalogue).values()]
        methods = [*recipe_folders.strategy_recipes(catalogue).values()]
        text = f"{len(families)} benchmark families, {len(methods)} strategies and plugins"
        yield Finding("ok", f"{text} in {', '.join(map(str, recipe_folders.folders(catalogue)))}")
    except DenseCLError as error:  # every command needs them
        yield Finding("error", first_line(error), "mend the file, or leave out --catalogue")


def data_sets(root: Path | None = None, catalogue: Path | None = None) -> Iterator[Finding]:
    """Each data set: where it is and how many images it has, or how to get it; and which benchmarks use it."""
    from densecl.data import canonical, data_set
    from densecl.data import names as data_sets_here

    uses: dict[str, list[str]] = {}
    for recipe in _readable(catalogue):
        overlays = [recipe, *recipe.split.values()]
        tasks = [task for overlay in overlays for task in overlay.stream.get("tasks", ())]
        for name in {overlay.data.get("name") for overlay in overlays} | {task.get("data") for task in tasks}:
            uses.setdefault(canonical(name) if name else "", []).append(f"{recipe.family}*")
    for name in data_sets_here():
        if name in ("folder", "class_folders"):  # any folders of images: nothing to find
            continue
        used_by = f"; for {', '.join(uses[name])}" if name in uses else ""
        try:
            place = (data := data_set(name)).search(root)
        except DenseCLError as error:  # several folders look like it
            yield Finding("problem", f"{name}: {error}")
            continue
        if place is not None:
            yield _opened(name, place, used_by)
        elif data.made == "all":
            yield Finding("ok", f"{name}: is drawn at its first use{used_by}")
        else:
            yield Finding("note", f"{name}: is not here{used_by}", data.hint())


def _opened(name: str, place: Path, used_by: str) -> Finding:
    """Images of a data set by its lists, compared with the published counts."""
    from densecl.data import data_set, open_dataset

    if data_set(name).made == "masks":  # they are painted when a split is opened
        return Finding("ok", f"{name}: {place}{used_by}", f"`densecl data verify {name}` reads its masks")
    try:
        counts = {split: len(open_dataset(name, split, place)) for split in ("train", "test")}
    except DenseCLError as error:
        return Finding("problem", f"{name}: {error}", f"`densecl data verify {name}` says more")
    text = f"{name}: {place}, {counts['train']:,} training and {counts['test']:,} test images{used_by}"
    official = data_set(name).counts
    other = [f"{official[split]:,} {split}" for split, count in counts.items() if count != official.get(split, count)]
    if other:
        return Finding("note", text, f"published are {' and '.join(other)}: not comparable with papers")
    return Finding("ok", text)


def weights(catalogue: Path | None = None) -> Iterator[Finding]:
    """The pretrained encoders of the catalogue's benchmarks."""
    from densecl.models.weights import weights_place
    from densecl.settings.backbone import resolve_backbone
    from densecl.settings.grammar import parse_one

    encoders: dict[str, list[str]] = {}
    for recipe in _readable(catalogue):
        body = parse_one(recipe.backbone, "backbone")
        if ":" in body.name:  # a user's: it is not imported for this
            continue
        values = resolve_backbone(body.name, body.arguments)
        if values.get("weights") == "timm" and values.get("encoder") not in (None, "mini"):
            encoders.setdefault(values["encoder"], []).append(f"{recipe.family}*")
    for encoder, families in encoders.items():
        used_by = f"; for {', '.join(families)}"
        place = weights_place(encoder)
        path = place if place.is_file() else _cached(encoder)
        if path is not None:
            yield Finding("ok", f"{encoder}: {path}{used_by}")
        else:
            advice = f"is downloaded at its first use; without a network put its file at {place}, or --weights none"
            yield Finding("note", f"{encoder}: is not here{used_by}", advice)


def _cached(encoder: str) -> str | None:
    """The file of an encoder's weights in the cache of the hub's client."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    hub = getattr(timm.get_pretrained_cfg(encoder), "hf_hub_id", None) or ""
    paths = (try_to_load_from_cache(hub, name) for name in ("model.safetensors", "pytorch_model.bin") if hub)
    return next((path for path in paths if isinstance(path, str)), None)


def _readable(catalogue: Path | None) -> Iterable[Any]:
    """All families of benchmarks; none where a recipe is broken, which `recipes` reports."""
    from densecl.settings.catalogue import benchmark_recipes

    with contextlib.suppress(DenseCLError):
        return [*benchmark_recipes(catalogue).values()]
    return ()
