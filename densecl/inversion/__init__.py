"""Images from a network alone: pooling, synthesis, banks of synthetic images, and their quality."""

from densecl.inversion.bank import Bank, Request, load_bank, open_bank
from densecl.inversion.pooling import lse_lba_pool
from densecl.inversion.quality import Agreement, Quality, agreement, measure_quality
from densecl.inversion.settings import Inversion, choose_targets
from densecl.inversion.synthesis import Job, Made, pixel_range, synthesise

__all__ = [
    "Agreement",
    "Bank",
    "Inversion",
    "Job",
    "Made",
    "Quality",
    "Request",
    "agreement",
    "choose_targets",
    "load_bank",
    "lse_lba_pool",
    "measure_quality",
    "open_bank",
    "pixel_range",
    "synthesise",
]
