"""Score of the Visual Decathlon (Rebuffi et al., NIPS 2017)."""

from collections.abc import Mapping

# top-1 accuracy in percent of networks that are fine-tuned task by task, of which an error is twice the largest that
# scores (Table 8 of Mallya et al., ECCV 2018)
FINETUNED = {
    "imagenet12": 59.87, "aircraft": 60.34, "cifar100": 82.12, "daimlerpedcls": 92.82, "dtd": 55.53, "gtsrb": 97.53,
    "vgg-flowers": 81.41, "omniglot": 87.69, "svhn": 96.55, "ucf101": 51.2,
}  # fmt: skip
EACH, EXPONENT = 1000, 2


def decathlon_score(errors: Mapping[str, float]) -> float:
    """The sum over tasks of 1000 (max(0, E_max - E) / E_max)^2, E_max = 2 E_finetuned; `errors` are shares by task.

    Tasks that are not of the Decathlon are left out. Published scores differ by up to 2, since errors are rounded here.
    """
    largest = {task: 2 * (1 - accuracy / 100) for task, accuracy in FINETUNED.items() if task in errors}
    return sum(EACH * (max(0.0, limit - errors[task]) / limit) ** EXPONENT for task, limit in largest.items())
