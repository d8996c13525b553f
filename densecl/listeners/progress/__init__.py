"""How a run goes, on standard error: bars on a terminal, plain lines with the time of day elsewhere."""

from densecl.listeners.progress.counter import Counter
from densecl.listeners.progress.progress import Progress
from densecl.listeners.progress.stream import make_console, say

__all__ = ["Counter", "Progress", "make_console", "say"]
