"""What the measurements should reach, on two cores of a server CPU."""

from bench.rows import Goal

LOOP = Goal(ratio=1.03)  # our training loop over a bare one
CHECKPOINT = Goal(ratio=1.02)  # a checkpoint after every epoch
WAITING = Goal(ratio=0.05)  # of the time of training, for the loader
REMAP = Goal(seconds=0.5e-3)  # labels of a 512x512 mask
SCAN = Goal(ratio=1.3)  # the class index over a bare decode
KEPT_INDEX = Goal(seconds=0.1)
UNBIASED_CROSS_ENTROPY = Goal(ratio=2.5, memory=0.6)
UNBIASED_DISTILLATION = Goal(ratio=1.5)
PIXEL_LOOP = Goal(ratio=500)
TORCHMETRICS = Goal(ratio=2)
SYNTHESIS = Goal(ratio=2)
PIGGYBACK = Goal(ratio=1.15)  # an iteration over one of fine-tuning
PACKING = Goal(seconds=20e-3)  # the masks of a task on the full U-Net, 14.8 M bits
SWITCHING = Goal(seconds=50e-3)  # the full U-Net to another task
