"""Tasks: what the network must output at a step, one file a kind.

`colorization`, `style_transfer` and `autoencoding` are imported from their own files, since they load torch; what is
here does not.
"""

from densecl.tasks.base import KINDS, Metrics, Picture, Prepared, Task
from densecl.tasks.segmentation import segmentation

__all__ = ["KINDS", "Metrics", "Picture", "Prepared", "Task", "segmentation"]
