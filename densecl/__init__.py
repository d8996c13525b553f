"""densecl: the benchmark suite for continual learning in dense prediction.

Public names are loaded when they are first used, so that `import densecl` is instant and does not import torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densecl import data, inversion, losses, metrics, models, streams
    from densecl.finished.predict import predict
    from densecl.models.network import Output
    from densecl.report.make import report
    from densecl.runner.own_loop import benchmark
    from densecl.runner.run import run
    from densecl.strategies.base import Plugin, Strategy
    from densecl.streams.scenario import Scenario
    from densecl.sweep.sweep import sweep
    from densecl.tables.collection import records
    from densecl.tables.compare import table
    from densecl.training.batch import Batch

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Output",
    "Plugin",
    "Scenario",
    "Strategy",
    "__version__",
    "benchmark",
    "data",
    "inversion",
    "losses",
    "metrics",
    "models",
    "predict",
    "records",
    "report",
    "run",
    "streams",
    "sweep",
    "table",
]

_HOMES = {
    "Batch": "densecl.training.batch",
    "Output": "densecl.models.network",
    "Plugin": "densecl.strategies.base",
    "Scenario": "densecl.streams.scenario",
    "Strategy": "densecl.strategies.base",
    "benchmark": "densecl.runner.own_loop",
    "predict": "densecl.finished.predict",
    "records": "densecl.tables.collection",
    "report": "densecl.report.make",
    "run": "densecl.runner.run",
    "sweep": "densecl.sweep.sweep",
    "table": "densecl.tables.compare",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"densecl.{name}")
    else:
        raise AttributeError(f"module 'densecl' has no attribute '{name}'")
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps `densecl.records`, `report` and `sweep` functions: importing a room of the same name would put it there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
