"""What runs are made of: recipes, data sets, pretrained weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densecl.about.doctor.finding import Finding, first_line
from densecl.errors import DenseCLError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def recipes(catalogue: Path | None = None) -> Iterator[Finding]:
    """Whether every recipe can be read."""
    from densecl.settings.catalogue import folders, strategy_recipes

    try:
        counts = (
            f"{len(_families(catalogue))} benchmark families, {len(strategy_recipes(catalogue))} strategies and plugins"
        )
        yield Finding("ok", "recipes", f"{counts} in {', '.join(map(str, folders(catalogue)))}")
    except DenseCLError as error:  # in the way of every command
        yield Finding("error", "recipes", first_line(error), "mend the file, or leave out --catalogue")


def data_sets(root: Path | None = None, catalogue: Path | None = None) -> Iterator[Finding]:
    """Each data set: where it is and how many images it has, or how to get it; and which benchmarks use it."""
    from densecl.data import data_set, names

    part = "data sets"
    uses = _uses(catalogue)
    for name in names():
        if name == "folder":  # any folder of images: nothing to find
            continue
        used = f"; for {', '.join(uses[name])}" if name in uses else ""
        try:
            place = (data := data_set(name)).search(root)
        except DenseCLError as error:  # several folders look like it
            yield Finding("problem", part, f"{name}: {error}")
            continue
        if place is not None:
            yield _opened(name, place, used)
        elif data.made == "all":
            yield Finding("ok", part, f"{name}: is drawn at its first use{used}")
        else:
            yield Finding("note", part, f"{name}: is not here{used}", data.hint())


def weights(catalogue: Path | None = None) -> Iterator[Finding]:
    """The pretrained encoders that the catalogue's benchmarks begin with."""
    from densecl.models.weights import weights_place

    part = "weights"
    for encoder, families in _encoders(catalogue).items():
        used = f"; for {', '.join(families)}"
        place, cached = weights_place(encoder), _cached(encoder)
        if place.is_file():
            yield Finding("ok", part, f"{encoder}: {place}{used}")
        elif cached is not None:
            yield Finding("ok", part, f"{encoder}: {cached}{used}")
        else:
            advice = f"is downloaded at its first use; without a network put its file at {place}, or --weights none"
            yield Finding("note", part, f"{encoder}: is not here{used}", advice)


def _opened(name: str, place: Path, used: str) -> Finding:
    """What a data set in a folder holds, by its lists."""
    from densecl.data import data_set, open_dataset

    if data_set(name).made == "masks":  # they are painted when a split is opened
        return Finding("ok", "data sets", f"{name}: {place}{used}", f"`densecl data verify {name}` reads its masks")
    try:
        counts = {split: len(open_dataset(name, split, place)) for split in ("train", "test")}
    except DenseCLError as error:
        return Finding("problem", "data sets", f"{name}: {error}", f"`densecl data verify {name}` says more")
    text = f"{name}: {place}, {counts['train']:,} training and {counts['test']:,} test images{used}"
    official = data_set(name).counts
    few = [f"{official[split]:,} {split}" for split, count in counts.items() if count != official.get(split, count)]
    if few:
        return Finding("note", "data sets", text, f"published are {' and '.join(few)}: not comparable with papers")
    return Finding("ok", "data sets", text)


def _families(catalogue: Path | None) -> list[Any]:
    from densecl.settings.catalogue import recipe_files
    from densecl.settings.recipe import BenchmarkRecipe, read_recipe

    return [read_recipe(path, BenchmarkRecipe) for path in recipe_files("benchmarks", catalogue)]


def _uses(catalogue: Path | None) -> dict[str, list[str]]:
    """Data set -> families of benchmarks; a family without a usable recipe is left out, `recipes` says so."""
    from densecl.data import canonical

    uses: dict[str, list[str]] = {}
    for recipe in _readable(catalogue):
        overlays = [recipe, *recipe.split.values()]
        names = {overlay.data.get("name") for overlay in overlays}
        names |= {task.get("data") for overlay in overlays for task in overlay.stream.get("tasks", ())}
        for name in sorted(filter(None, names)):
            uses.setdefault(canonical(name), []).append(f"{recipe.family}*")
    return uses


def _encoders(catalogue: Path | None) -> dict[str, list[str]]:
    """Encoder with weights of timm -> families of benchmarks whose backbone has it."""
    from densecl.settings.backbone import resolve_backbone
    from densecl.settings.grammar import parse_one

    found: dict[str, list[str]] = {}
    for recipe in _readable(catalogue):
        body = parse_one(recipe.backbone, "backbone")
        if ":" in body.name:  # a user's: it is not imported for this
            continue
        values = resolve_backbone(body.name, body.arguments)
        if values.get("weights") == "timm" and values.get("encoder") not in (None, "mini"):
            found.setdefault(values["encoder"], []).append(f"{recipe.family}*")
    return found


def _readable(catalogue: Path | None) -> list[Any]:
    try:
        return _families(catalogue)
    except DenseCLError:
        return []


def _cached(encoder: str) -> str | None:
    """Where the hub's client keeps an encoder's weights, if it has fetched them."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    hub = getattr(timm.get_pretrained_cfg(encoder), "hf_hub_id", None) or ""
    for name in WEIGHT_FILES if hub else ():
        found = try_to_load_from_cache(hub, name)
        if isinstance(found, str):
            return found
    return None
