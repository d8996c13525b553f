"""One run in several processes, as torchrun starts them: each has the whole network and a share of every batch.

Gradients are summed here, after the backward pass, and not by DistributedDataParallel: that one stops or hangs when a
parameter takes no part in a loss, which growing heads, ignored auxiliary outputs and losses of plugins make common.
With one process every function here does nothing.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from densecl.errors import RunError

T = TypeVar("T")

BUCKET = 1 << 23  # elements of a gradient bucket: 32 MiB of float32
PATIENCE = timedelta(days=1)  # others may wait long while the main process waits for a first step that is being trained
MEETING = timedelta(minutes=10)  # to find each other, when a run begins
FAILED = "densecl/failed"

_store: Any = None


class PeerError(RunError):
    """Another process of the run has gone."""


def launched() -> bool:
    """True if torchrun started this process, alone or as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def join() -> None:
    """Meet the other processes of torchrun, once; RunError if they cannot be met."""
    global _store  # the one connection of this process to the others, as torch.distributed itself holds one
    if not launched() or dist.is_initialized() or int(os.environ["WORLD_SIZE"]) < 2:
        return
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, world = next(rendezvous("env://", timeout=MEETING))
        store.set_timeout(PATIENCE)
        _store = PrefixStore("densecl", store)
        dist.init_process_group(backend, store=_store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError, KeyError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}"
        fault = (str(error).splitlines() or [""])[0].rstrip(".")
        message = f"process {os.environ['RANK']} cannot meet the others of the run at {place}: {fault}"
        raise RunError(message, "check MASTER_ADDR and MASTER_PORT, and what process 0 says") from error


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        # Destroying joins gloo's threads while it holds the GIL, and up to torch 2.6 at least a thread that has just
        # finished the last collective wants the GIL to drop its tensors: both wait for ever. Let it have it first.
        time.sleep(0.2)
        dist.destroy_process_group()


def world() -> int:
    """Number of processes that train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Number of this process on its host, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def local_world() -> int:
    """Number of processes that this host has of the run."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def is_main() -> bool:
    """True if this process writes files and messages."""
    return rank() == 0


def least_share(device: torch.device) -> int:
    """Images a process needs of a batch: BatchNorm without synchronisation cannot learn from one (1x1 maps)."""
    return 1 if device.type == "cuda" else 2


def claim_failure() -> bool:
    """True for the first process that asks: it says why the run ends."""
    if _store is None:
        return True
    with contextlib.suppress(RuntimeError):  # the store has gone with the host that held it
        return _store.compare_set(FAILED, "", str(rank())).decode() == str(rank())
    return is_main()


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """PeerError where a collective fails: another process has gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(
            f"another process of the run has died (noticed by process {rank()} on {socket.gethostname()})",
            "see what it said; the same command goes on from the last finished epoch",
        ) from error


def total(value: Tensor) -> Tensor:
    """Sum over processes, without gradient."""
    if world() == 1:
        return value
    value = value.detach().clone()
    with _peers():
        dist.all_reduce(value)
    return value


def gather(value: Tensor) -> Tensor:
    """Join the rows (B, ...) of all processes in their order; those of this one keep their gradient."""
    if world() == 1:
        return value
    counts = from_all(len(value))
    padded = value.new_zeros(max(counts), *value.shape[1:])
    padded[: len(value)] = value.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    with _peers():
        dist.all_gather(parts, padded)
    rows = [part[:count] for part, count in zip(parts, counts, strict=True)]
    rows[rank()] = value
    return torch.cat(rows)


def total_terms(terms: dict[str, Tensor], names: Iterable[str], device: torch.device) -> dict[str, Tensor]:
    """Sum loss terms over processes, of which one may lack a term that another has; `names` are all possible ones."""
    if world() == 1:
        return terms
    names, zero = list(names), torch.zeros((), device=device)
    row = torch.stack([terms[name].detach().float().reshape(()) if name in terms else zero for name in names])
    present = torch.tensor([float(name in terms) for name in names], device=device)
    row, present = total(torch.stack([row, present]))
    return {name: row[k] for k, name in enumerate(names) if present[k] > 0}


def from_main(make: Callable[[], T]) -> T:
    """Result of `make` in the main process, on all processes."""
    if world() == 1:
        return make()
    box = [make() if is_main() else None]
    with _peers():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[return-value]


def from_all(value: T) -> list[T]:
    """List of the value of each process, in their order."""
    if world() == 1:
        return [value]
    values: list[T | None] = [None] * world()
    with _peers():
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


@contextlib.contextmanager
def first_on_each_host() -> Iterator[None]:
    """Run the body on one process of each host, then on the others, which find its results in a cache."""
    first = local_rank() == 0
    if not first:
        _barrier()
    yield
    if first:
        _barrier()


def _barrier() -> None:
    if world() > 1:
        with _peers():
            dist.barrier()


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in buckets; a parameter without gradient on all of them stays without."""
    if world() == 1:
        return
    trained = list(parameters)
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
    with _peers():
        dist.all_reduce(used, op=dist.ReduceOp.MAX)  # on the CPU, so a GPU is not waited for
    gradients = []
    for parameter in (p for p, flag in zip(trained, used.tolist(), strict=True) if flag):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    _exchange(gradients, dist.all_reduce)


def _exchange(tensors: Iterable[Tensor], collective: Callable[..., Any], **options: Any) -> None:
    """Call a collective on tensors in place, by buckets of one type that are under way at once."""
    pending = []
    with _peers():
        for bucket in _buckets(sorted(tensors, key=lambda tensor: str(tensor.dtype))):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            pending.append((bucket, flat, collective(flat, async_op=True, **options)))
        for bucket, flat, work in pending:
            work.wait()
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Group neighbours of one type, up to `BUCKET` elements together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Average floating buffers, BatchNorm's running statistics, over processes; in evaluation mode they stand still."""
    if world() == 1:
        return
    parts = (part for part in module.modules() if part.training)
    buffers = [b for part in parts for b in part.buffers(recurse=False) if b.is_floating_point()]
    _exchange(buffers, dist.all_reduce)
    for buffer in buffers:
        buffer /= world()


@torch.no_grad()
def copy_from_main(module: nn.Module) -> None:
    """Copy parameters and buffers of the main process to the others."""
    if world() == 1:
        return
    _exchange(module.state_dict().values(), dist.broadcast, src=0)


def syncs_batchnorm(device: torch.device) -> bool:
    """True if BatchNorm takes its statistics from the whole batch: on GPUs; torch has no such layer for a CPU."""
    return world() > 1 and device.type == "cuda"
