"""Files with random damage, and what is said of them."""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from densecl.errors import DenseCLError

SECONDS = 2.0  # of damage to one file
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
    tree = json.loads(good)
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
        node[key] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def messages(
    path: Path,
    read: Callable[[], object],
    damage: Callable[[bytes, random.Random], bytes] = damaged,
    seconds: float = SECONDS,
) -> Iterator[str]:
    """Collect the messages about a file in many damaged states; any exception but a `DenseCLError` goes through."""
    good, rng, end = path.read_bytes(), random.Random(path.name), time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            path.write_bytes(damage(good, rng))
            try:
                read()
            except DenseCLError as error:
                yield str(error)
    finally:
        path.write_bytes(good)


def spoken_badly(said: Iterator[str], name: str = "") -> list[str]:
    """Messages in Python's words, on several lines, or without the name of the file."""
    heard = list(said)
    assert heard, "no damage was noticed"
    return [line for line in heard if PYTHON.search(line) or "\n" in line.strip() or name not in line]
