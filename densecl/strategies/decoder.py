"""The encoder of the first task is shared and fixed; each task has a decoder and a head of its own."""

from typing import Literal

from densecl.errors import SettingError
from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step


class Decoder(ByTask):
    """Matsumoto and Yanai's comparison "decoder": the least that a task needs to keep the others whole."""

    _formula = "decoder"
    start: Literal["first", "previous"] = "first"  # whose decoder a task's own starts from

    def configure(self) -> None:
        """Refuse a backbone without a decoder."""
        if not self.network.backbone.decoder_parts:
            name = type(self.network.backbone).__name__
            raise SettingError(f"decoder: {name} has no decoder", "use a backbone such as unet")

    def grow(self, step: Step) -> None:
        """Give each task from the second on a decoder, and train nothing else."""
        if step.step > 0:
            start = self.names[0] if self.start == "first" and step.step > 1 else None
            self.bank([f"backbone.{name}" for name in self.network.backbone.decoder_parts], start=start)
            self.freeze()
