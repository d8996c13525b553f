"""Randomness is derived, never carried: every draw has its own seed, made from the run's seed and where it happens."""

import hashlib

import numpy as np


def derive(*parts: int | str) -> int:
    """A 63-bit seed from (run seed, purpose, step, epoch, ...); independent of process, platform and call order."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A generator seeded by `derive`."""
    return np.random.Generator(np.random.PCG64(derive(*parts)))


def seed_torch(*parts: int | str) -> None:
    """Seed torch's own generators by `derive`; without a GPU that of the CPU alone.

    torch.manual_seed would note for GPUs that may still be found, with the stack of calls, each time.
    """
    import torch

    seed = derive(*parts)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
