"""How a run goes, on standard error: bars on a terminal, plain lines with the time of day elsewhere."""

from densecl.reporting.progress.console import make_console, say
from densecl.reporting.progress.counter import Counter
from densecl.reporting.progress.progress import Progress

__all__ = ["Counter", "Progress", "make_console", "say"]
