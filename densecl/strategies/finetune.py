"""Fine-tuning: the lower bound."""

from densecl.strategies.base import Strategy
from densecl.tasks import KINDS


class Finetune(Strategy):
    """The task's loss (cross-entropy) on each step's own labels; nothing holds on to earlier steps."""

    kinds = frozenset(KINDS)
    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
