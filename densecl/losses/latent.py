"""SDR's terms between features of classes (Michieli and Zanuttigh, CVPR 2021).

exact: means and distances over the places of a class. published: the released code picks a class's entries image by
image and then cuts them anew into channels and places (for matching, places and channels), which mixes channels
wherever a batch has several images, and in matching always.
"""

from typing import Literal

import torch
from torch import Tensor

from densecl.losses.reduction import widen

Form = Literal["exact", "published"]
VOID = 255
NEAREST = 1e-6  # distances below it count as it


def prototype_matching(features: Tensor, labels: Tensor, prototypes: Tensor, *, form: Form = "exact") -> Tensor:
    """Mean over classes of the mean squared difference of a class's mean feature and its prototype.

    Args:
        features: (B, D, h, w), any floating type; computed in at least float32.
        labels: (B, h, w) int64, the class of each place; 0 and labels without a prototype take no part.
        prototypes: (K, D), row c of label c; constants.
        form: see the module.
    """
    features, prototypes = widen(features), prototypes.detach().to(widen(features).dtype)
    classes = _present(labels, 1, len(prototypes))
    if not len(classes):
        return features[:0].sum()
    if form == "exact":
        means = class_means(features, labels, classes)
    else:
        means = torch.stack([_entries(features, labels, c).view(-1, features.shape[1]).mean(0) for c in classes])
    return (means - prototypes[classes]).square().mean()


def prototype_attraction(features: Tensor, labels: Tensor, prototypes: Tensor, *, form: Form = "exact") -> Tensor:
    """Mean over classes of the mean squared difference of a class's features and its prototype.

    published: the sum so far is divided by the number of classes again with every class. The arguments are those of
    `prototype_matching`, but label 0 is a class.
    """
    features, prototypes = widen(features), prototypes.detach().to(widen(features).dtype)
    classes = _present(labels, 0, len(prototypes))
    loss = features[:0].sum()
    if form == "published":
        for c in classes:
            entries = _entries(features, labels, c).view(features.shape[1], -1)
            loss = (loss + (entries - prototypes[c].unsqueeze(1)).square().mean()) / len(classes)
        return loss
    if not len(classes):
        return loss
    index, counts = _index(labels, classes)
    known = index < len(classes)
    own = (features.movedim(1, -1)[known] - prototypes[classes][index[known]]).square().mean(1)  # (n,)
    return (own / counts[index[known]]).sum() / len(classes)


def prototype_separation(features: Tensor, labels: Tensor, *, form: Form = "exact") -> Tensor:
    """Mean over pairs of classes of 1 / distance of their mean features; 0 for a single class.

    The first two arguments are those of `prototype_attraction`; void (255) is no class.
    """
    features = widen(features)
    classes = _present(labels, 0, VOID)
    if len(classes) < 2:
        return features[:0].sum()
    if form == "exact":
        means = class_means(features, labels, classes)
    else:
        means = torch.stack([_entries(features, labels, c).view(features.shape[1], -1).mean(1) for c in classes])
    first, second = torch.triu_indices(len(classes), len(classes), 1)
    distances = torch.linalg.vector_norm(means[first] - means[second], dim=1)
    return (1 / distances.clamp(min=NEAREST)).mean()


def feature_sparsity(features: Tensor, labels: Tensor) -> Tensor:
    """Mean over places of sum_d e^f / (sum_d f + 1e-15), with f divided by the largest value in its class (+ 1e-15).

    Args:
        features: (B, D, h, w), not negative; any floating type, computed in at least float32.
        labels: (B, h, w) int64; void is a class of its own.
    """
    features = widen(features)
    if not features.numel():
        return features.sum()
    flat = labels.flatten()
    none = features.new_zeros(VOID + 1)
    largest = none.scatter_reduce(0, flat, features.amax(1).flatten(), "amax", include_self=False)
    scaled = features / (largest[labels].unsqueeze(1) + 1e-15)
    return (scaled.exp().sum(1) / (scaled.sum(1) + 1e-15)).mean()


def class_means(features: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """(K, D) mean features of classes that are there; features (B, D, h, w) in float32 or float64."""
    index, counts = _index(labels, classes)
    own = (index.unsqueeze(1) == torch.arange(len(classes), device=labels.device).view(1, -1, 1, 1)).to(features)
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bkhw,bdhw->kd", own, features) / counts.to(features.dtype).unsqueeze(1)


def update_prototypes(
    prototypes: Tensor, counts: Tensor, features: Tensor, labels: Tensor, *, form: Form = "exact"
) -> tuple[Tensor, Tensor]:
    """Prototypes (K, D) as means of all places so far, and the numbers of these (K,), after a batch.

    Args:
        prototypes: (K, D), row c of label c; never changed.
        counts: (K,) places that each is the mean of; never changed.
        features: (B, D, h, w), any floating type; constants, computed in at least float32.
        labels: (B, h, w) int64; labels without a prototype, as void (255), take no part.
        form: see the module.
    """
    f = widen(features.detach())
    mean, total = prototypes.to(torch.promote_types(prototypes.dtype, f.dtype), copy=True), counts.clone()
    classes = _present(labels, 0, len(prototypes))
    if len(classes):
        own = class_means(f, labels, classes)
        if form == "published":
            own = torch.stack([_entries(f, labels, c).view(f.shape[1], -1).mean(1) for c in classes])
        places = _index(labels, classes)[1].to(counts.dtype)
        total[classes] += places
        mean[classes] = torch.lerp(mean[classes], own.to(mean.dtype), (places / total[classes]).to(mean).unsqueeze(1))
    return mean, total


def _present(labels: Tensor, low: int, high: int) -> Tensor:
    """Labels low..high-1 that are there, in order."""
    found = labels.unique()
    return found[(found >= low) & (found < high)]


def _index(labels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, h, w) the position of each label among the classes, their number where it is none; and places of each."""
    position = torch.full((VOID + 1,), len(classes), device=labels.device)
    position[classes] = torch.arange(len(classes), device=labels.device)
    index = position[labels]
    return index, index.flatten().bincount(minlength=len(classes))[: len(classes)]


def _entries(features: Tensor, labels: Tensor, label: Tensor) -> Tensor:
    """The entries at a class's places, image by image, in each channel by channel."""
    return features[(labels == label).unsqueeze(1).expand_as(features)]
