"""Random damage to files, and what is said of them."""

import datetime
import io
import json
import math
import random
import re
import tomllib
from collections.abc import Callable
from typing import Any

import torch

from densecl.runner.checkpoint import MAGIC, pack

Damage = Callable[[bytes, random.Random], bytes]
PYTHON = re.compile(
    r"\b[A-Z]\w*(Error|Exception|Warning|Interrupt)\b|object of type|<class '|Traceback|NoneType|\bErrno\b|weights_only"
    r"|valid (tuple|dictionary|mapping)|instance of"
)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1e400, "x", "9" * 50, [], {}, [None], {"x": 1}, [[1, 2], 3], 0.5)
TOKENS = (b"{", b"]", b'"', b"\0", b"\xff\xfe", b"-1", b"1e999", b"null", b"[[x]]\n", b" = ", b"\n", b"(", b"'")


def damaged(good: bytes, rng: random.Random) -> bytes:
    """A file cut, with flipped bits, with random bytes, or with a token put in or taken out."""
    bad, at = bytearray(good), rng.randrange(len(good))
    kind = rng.randrange(5)
    if kind == 0:
        bad = bad[:at]
    elif kind == 1:
        for _ in range(rng.choice((1, 3))):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        bad[at : at + 16] = rng.randbytes(16)
    elif kind == 3:
        bad[at:at] = rng.choice(TOKENS)
    else:
        bad[at : at + rng.choice((1, 4, 40))] = b""
    return bytes(bad)


def other_value(good: bytes, rng: random.Random) -> bytes:
    """A JSON file with another value, or without one, in a random place."""
    return json.dumps(_changed(json.loads(good), rng, VALUES)).encode()


def other_key(good: bytes, rng: random.Random) -> bytes:
    """A TOML file with another value, or without one, in a random place."""
    values = (*VALUES[1:], datetime.date(2020, 2, 29), math.nan, -0.0)
    return _toml(_changed(tomllib.loads(good.decode()), rng, values)).encode()


def other_header(good: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another value, or without one, in its header; the tensors stay."""
    size = int.from_bytes(good[:8], "little")
    header = other_value(good[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + good[8 + size :]


def other_state(good: bytes, rng: random.Random) -> bytes:
    """A checkpoint whose checksum fits, with another value, or without one, in a random place."""
    state = torch.load(io.BytesIO(good[len(MAGIC) :].partition(b"\n")[2]), weights_only=True)
    return pack(_changed(state, rng, (*VALUES, torch.zeros(2, 3), torch.ones(0))))


def _changed(tree: Any, rng: random.Random, values: tuple[Any, ...]) -> Any:
    """A tree with another value, or without one, in a random place."""
    node: Any = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            break
        node = node[key]
    if isinstance(node, dict) and rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice(values)
    return tree


def _toml(tree: dict[str, Any]) -> str:
    """A tree as TOML, which has no null: what is None is left out."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {text(v)}" for k, v in value.items() if v is not None) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(text(item) for item in value if item is not None) + "]"
        return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)

    return "".join(f"{json.dumps(key)} = {text(value)}\n" for key, value in tree.items())


def badly_said(line: str, name: str = "") -> bool:
    """True if a message is in Python's words, on several lines, or without the name of the file."""
    return bool(PYTHON.search(line)) or "\n" in line.strip() or name not in line
