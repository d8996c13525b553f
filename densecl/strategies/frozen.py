"""Fine-tuning of new heads on a body that stays as step 0 left it: the control of methods that train more."""

from densecl.strategies.base import Strategy
from densecl.streams.scenario import Experience


class Frozen(Strategy):
    """Cross-entropy on each step's own labels; after step 0 the heads of new classes train and nothing else does."""

    first_step = "shared"

    def before_step(self, experience: Experience) -> None:
        """Fix the backbone, and the heads of earlier steps, background's too."""
        if self.step > 0:
            earlier = self.network.heads.earlier() if experience.new_classes else []
            for module in (self.network.backbone, *earlier):
                module.requires_grad_(False)

    def train_mode(self) -> None:
        """Keep BatchNorm and dropout of the backbone as in evaluation after step 0."""
        super().train_mode()
        if self.step > 0:
            self.network.backbone.eval()
