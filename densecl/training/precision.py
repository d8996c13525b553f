"""How a run computes: mixed precision with its scaler, memory of a CPU, compiled passes, deterministic kernels."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from typing import Any

import torch

from densecl.errors import SettingError
from densecl.models.network import Network, Output

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and gradient scaling of one run; SettingError for fp16 without CUDA."""

    def __init__(self, name: str, device: torch.device):
        if name == "fp16" and device.type != "cuda":
            raise SettingError(f"fp16 needs a CUDA device, not {device}", "use --precision bf16 or fp32")
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler("cuda") if name == "fp16" else None

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of forward passes."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=TYPES[self.name])

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a loss."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One update; skipped by the scaler when a gradient overflowed."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()


def widened(output: Output) -> Output:
    """The output in float32: losses are never computed in half precision."""
    if output.logits.dtype == torch.float32:
        return output

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        return None if value is None else value.float()

    same = output.coarse is output.logits
    result = Output(*map(wide, output._replace(coarse=None) if same else output))
    return result._replace(coarse=result.logits) if same else result


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free, instead of asking the system for each large one anew, page by page.

    On a CPU that took a fifth of the time of an iteration on photographs; nothing where the library is another one.
    """
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for threshold in (trim, mmap):
            library.mallopt(threshold, 1 << 30)


def make_deterministic() -> None:
    """Let torch choose kernels that give the same bits each time, where it has some."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def compiled(network: Network, strategy: Any, losses: bool) -> Callable[[torch.Tensor, int], Output]:
    """The compiled pass of a network, and with `losses` of a strategy's losses: anew each step, whose graphs differ."""
    torch.compiler.reset()  # graphs of earlier steps count against the limit above which torch compiles no more
    for hook in ("task_loss", "regulariser") if losses else ():
        setattr(strategy, hook, torch.compile(getattr(type(strategy), hook).__get__(strategy)))
    return torch.compile(network)
