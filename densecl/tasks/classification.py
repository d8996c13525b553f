"""Image classification: one label for a whole image; top-1 and top-5 error. Image-level, beside tasks of pixels."""

from typing import TYPE_CHECKING, Any, Self

from densecl.errors import SettingError
from densecl.tasks.base import Context, Metrics, Picture, Prepared, Task

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.training.batch import Batch

SEVERAL = 5  # guesses of the second error
RIGHT, WRONG, UNKNOWN = (0, 130, 60), (190, 40, 30), (60, 60, 60)  # behind the name of the guess


class Classification(Task):
    """One output a class, for the whole image: the head is global average pooling and a linear layer.

    The loss is cross-entropy; errors are shares of the test images whose class is not the first guess, or among the
    first five, where there are more than five classes. Of equal outputs the first counts as the larger.
    """

    kind = "classification"
    primary = "top1_error"
    higher_is_better = False
    measures = ("top1_error", "top5_error")
    truth = "class"
    image_level = True

    # the weights of the backbone were trained for it: its head is their last layer, and it is not trained
    pretrained: bool = False

    def __init__(self, name: str, *, class_names: tuple[str, ...], **values: Any):
        super().__init__(name, **values)
        if not class_names:
            raise SettingError(f"task '{name}' has no classes", "name a data set with classes of whole images")
        self.class_names, self.outputs = class_names, len(class_names)

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """The task of all classes of the data set."""
        return cls(name, class_names=context.class_names, **values)

    @property
    def given(self) -> bool:
        """True if it is the task of the pretrained weights."""
        return self.pretrained

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and 1 at its class, (B, C, 1, 1); zeros where its class is not known.

        The truth (B, 1, H, W) holds the number of the class, from 1, wherever an augmentation shows the image.
        """
        from torch.nn.functional import one_hot

        number = mask.flatten(1).amax(1).long()  # (B,)
        chosen = one_hot(number, len(self.class_names) + 1)[:, 1:]
        return Prepared(image, chosen.float()[..., None, None])

    def predicted(self, logits: "Tensor") -> "Tensor":
        """Probabilities (B, C, 1, 1)."""
        return pooled(logits).softmax(1)[..., None, None]

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Cross-entropy, the weighted mean over images."""
        from densecl.losses.images import sample_mean

        losses = -(batch.target.flatten(1) * pooled(logits).log_softmax(1)).sum(1)  # (B,)
        return sample_mean(losses, batch.weight)

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """Cross-entropy with the teacher's probabilities, mean over images."""
        return -(self.predicted(teacher_logits).flatten(1) * pooled(logits).log_softmax(1)).sum(1).mean()

    def metrics(self) -> Metrics:
        """Averages of the errors of images."""
        from densecl.metrics.image_quality import ImageAverages

        return ImageAverages(self.measures if len(self.class_names) > SEVERAL else self.measures[:1], self.scores)

    def scores(self, output: "Tensor", image: "Tensor", target: "Tensor") -> "dict[str, Tensor]":
        """`top1_error` and `top5_error` of each image, 0 or 1, (B,) each."""
        from densecl.metrics.ranks import rank_of

        rank = rank_of(pooled(output), target.flatten(1).argmax(1))
        return {"top1_error": (rank >= 1).float(), "top5_error": (rank >= SEVERAL).float()}

    def likely(self, logits: "Tensor", count: int = SEVERAL) -> dict[str, float]:
        """The most probable classes of one image (C, h, w), with their probabilities."""
        values, places = pooled(logits[None])[0].softmax(0).topk(min(count, len(self.class_names)))
        return dict(zip((self.class_names[k] for k in places.tolist()), values.tolist(), strict=True))

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """The image, then the name of the guess on green or red, then that of the truth."""
        guess = int(pooled(output[None])[0].argmax())
        true = int(mask.max()) - 1
        colour = UNKNOWN if true < 0 else RIGHT if guess == true else WRONG
        size = (image.shape[2], image.shape[1])
        truth = self.class_names[true] if true >= 0 else ""
        return Picture(image, lettered(self.class_names[guess], size, colour), lettered(truth, size, UNKNOWN))


def pooled(logits: "Tensor") -> "Tensor":
    """(B, C) of outputs (B, C, h, w), in at least float32: one place of a head that pools, else the mean of all."""
    from densecl.losses.reduction import widen

    return widen(logits).mean((2, 3))


def lettered(text: str, size: tuple[int, int], colour: tuple[int, int, int]) -> "Tensor":
    """(3, H, W) uint8: a text of one or more lines on a colour, in letters as large as fit into (width, height)."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", size, colour)
    draw, lines = ImageDraw.Draw(canvas), text.replace("_", " ").replace(" ", "\n")
    letters = max(6, size[1] // 4)
    while True:
        font = ImageFont.load_default(letters)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), lines, font=font)
        if letters <= 6 or (right - left <= size[0] and bottom - top <= size[1]):
            break
        letters -= 1
    draw.multiline_text((size[0] // 2, size[1] // 2), lines, "white", font, "mm", align="center")
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).contiguous()
