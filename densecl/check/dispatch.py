"""Checks by what a name means: a method, or a data set or backbone of one's own."""

from pathlib import Path

from densecl.settings.grammar import parse


def check(text: str, data: Path | None = None, catalogue: Path | None = None) -> tuple[list[str], str]:
    """Find what is wrong with something that a run can name.

    Args:
        text: such as `mine.py:Mine(weight=3)`, or the name of a strategy, plugin or data set.
        data: the folder of a data set.
        catalogue: a folder with recipes of one's own.

    Returns:
        Findings in words, empty if nothing is wrong; and what was tried.

    Raises:
        DenseCLError: the text names nothing that can be tried.
    """
    from densecl.check.backbone import backbone_of, check_backbone_class
    from densecl.check.data_set import check_data_set, names_data_set

    if (backbone := backbone_of(text)) is not None:
        return check_backbone_class(*backbone), "maps of all sizes, gradients, growing heads, state"
    if names_data_set(text):
        from densecl.data import data_set

        values = parse(text)[0].arguments
        return check_data_set(data_set(text), data, **values), "files, images, masks, labels, classes"
    from densecl.check.check import check_method

    return check_method(text, catalogue), "hooks, outputs, losses, growing heads, state"
