"""Joint training: the upper bound."""

from densecl.strategies.base import Strategy


class Joint(Strategy):
    """All images and all labels in one step; tables group its classes by the benchmark's steps."""

    joint = True
