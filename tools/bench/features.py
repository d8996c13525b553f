"""A frozen encoder whose maps are kept: an epoch that reads them beside one that computes them."""

import os
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from unittest.mock import patch

from bench.rows import SPEED, Bench, Form, Goal, Row
from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.runner.methods import parse_method
from densecl.training.loop import Loop

SMALL = {"encoder": "vit_tiny_patch16_224", "size": 32}


def measure(bench: Bench, encoder: str = "vit_small_patch16_224", size: int = 224) -> Iterator[Row]:
    """An epoch of a linear decoder on a frozen vision transformer, whose maps are kept in a temporary folder."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, {"DENSECL_CACHE": folder}):
        kept, computed = (_loop(bench, encoder, size, cached) for cached in (True, False))
        _epoch(kept)()  # fills the cache
        images = len(kept.scenario.experiences[0].images.indices)
        yield bench.compare(
            f"an epoch of {images} images {size}x{size}, frozen {encoder} and a linear decoder",
            Form("kept features", _epoch(kept)),
            Form("computed features", _epoch(computed)),
            SPEED,
            goal=Goal(ratio=5.0),
        )


def _loop(bench: Bench, encoder: str, size: int, cached: bool) -> Loop:
    options = {"encoder": encoder, "weights": "none", "decoder": "linear", "maps": 1, "encoder.img_size": size}
    settings = TRAINING.model_copy(update={"freeze": "encoder", "cache_features": cached})
    network = tiny_network("vit", **options)
    method, scenario = parse_method("finetune"), tiny_scenario(size=size)
    loop = tiny_loop(method, scenario, network, settings, device=bench.device, cache_gib=4.0)
    loop.begin(loop.scenario.experiences[0])
    return loop


def _epoch(loop: Loop) -> Callable[[], None]:
    def train() -> None:
        loop.iterations = 0  # another first epoch
        loop.begin_epoch()
        for batch in loop.loader:
            loop.update(batch)

    return train
