"""The encoder of the first task is shared and fixed; each task has a decoder and a head of its own."""

from typing import Literal

from densecl.errors import SettingError
from densecl.strategies.by_task import ByTask
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step


class Decoder(ByTask):
    """Matsumoto and Yanai's comparison "decoder": what a task needs at least to keep the others whole."""

    start: Literal["first", "previous"] = "first"  # whose decoder a task's own starts from

    def configure(self) -> None:
        """Refuse a backbone without a decoder."""
        if not self.network.backbone.decoder_parts:
            raise SettingError(
                f"decoder: {type(self.network.backbone).__name__} has no decoder", "use a backbone such as unet"
            )

    def grow(self, step: Step) -> None:
        """From the second task on a decoder of its own, and nothing else is trained."""
        if step.step > 0:
            names = [f"backbone.{name}" for name in self.network.backbone.decoder_parts]
            start = self.names[0] if self.start == "first" and step.step > 1 else None
            self.bank(names, start=start)
            self.freeze()

    def model_bytes(self) -> int:
        """By formula."""
        return formula_bytes(self.network, "decoder", self.learnt)
