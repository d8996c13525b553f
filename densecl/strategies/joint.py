"""Joint training: the upper bound."""

from densecl.strategies.base import Strategy


class Joint(Strategy):
    """All images and all labels in one step; tables group its classes by the benchmark's steps."""

    joint = True
    first_step = "shared"  # with joint runs of other splits of the same classes
