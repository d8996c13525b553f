"""A published row, and a run that follows its protocol."""

from densecl.records.published import Reported
from densecl.records.record import Evaluation, Record, StepRecord

CLASSES = list(range(1, 21))
MIB = {
    "benchmark": "voc15-5",
    "setting": "overlapped",
    "labels": "mib2020",
    "grouping": "fg-only",
    "backbone": "deeplabv3(encoder=resnet101, output_stride=16)",
    "pretrained": True,
    "images": {"train": 10582, "test": 1449},
    "settings": {
        "training": {"epochs": 30, "batch": 24, "lr": 0.01, "later": {"lr": 0.001}, "crop": 512},
        "evaluation": {"size": 512},
    },
    "strategy": {"distillation": 10.0},
    "method": "mib",
    "values": {"base": 75.5, "added": 49.4, "all": 69.0},
}


def reported(**changes) -> Reported:
    own = {"name": "MiB", "paper": "Cermelli et al.", "table": "Table 1", "source": "voc-tab.png"}
    return Reported.model_validate({**own, **MIB, **changes})


def run(base=0.7, added=0.5, background=0.9, seed=0, **changes) -> Record:
    """A run of MiB's protocol with one IoU for all base and one for all added classes."""
    iou = [background, *[base] * 15, *[added] * 5]
    evaluation = Evaluation(task="voc", metrics={"miou": {}, "iou": iou, "forgetting": 0.1})
    done = [
        StepRecord(step=k, task="voc", new_classes=new, iterations=1, seconds=1.0, evaluations=[evaluation])
        for k, new in enumerate((CLASSES[:15], CLASSES[15:]))
    ]
    settings = {
        "strategy_values": {"distillation": 10.0},
        "backbone_values": {"encoder": "resnet101", "output_stride": 16, "weights": "timm"},
        "stream": {"setting": "overlapped", "labels": "mib2020", "order": CLASSES},
        "data": {"validation": 0.0},
        "training": {
            "epochs": 30,
            "iterations": None,
            "later": {"lr": 0.001, "epochs": None, "iterations": None},
            "batch": 24,
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "lr": 0.01,
            "power": 0.9,
            "augmentation": "reference",
            "crop": 512,
            "warmup": 0,
            "class_weights": 0.0,
            "batchnorm": "train",
        },
        "evaluation": {"size": 512, "batch": 16},
    }
    for key, value in changes.pop("set", {}).items():
        node = settings
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        node[last] = value
    values = {
        "densecl": "0.1.0",
        "benchmark": "voc15-5",
        "strategy": "mib",
        "backbone": "deeplabv3",
        "seed": seed,
        "hash": "0",
        "status": "finished",
        "settings": settings,
        "environment": {"images": {"train": 10582, "test": 1449}},
        "class_names": ["background", *(str(c) for c in CLASSES)],
        "has_background": True,
        "planned_steps": [CLASSES[:15], CLASSES[15:]],
        "steps": done,
    }
    return Record(**(values | changes))
