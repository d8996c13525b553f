"""Steps by groups of class names."""

from densecl.data import data_set
from densecl.errors import SettingError
from densecl.settings.grammar import parse_one
from densecl.settings.recipe import StreamSettings
from densecl.settings.splits import grouped


def without_groups(stream: StreamSettings, data: str, *, trusted: bool = True) -> StreamSettings:
    """The settings of a stream with the split and the order that its groups say; `data` is the name of its data set.

    SettingError for groups that do not fit the classes, or of a stream of another kind, or beside an order.
    """
    if not stream.groups:
        return stream
    if stream.kind != "class" or stream.order is not None:
        beside = f"stream.kind={stream.kind}" if stream.kind != "class" else "stream.order"
        raise SettingError(f"stream.groups and {beside} exclude each other", "leave out one of them")
    settings = parse_one(data, "data set").arguments
    split, order = grouped(stream.groups, data_set(data, trusted=trusted).names_with(settings))
    return stream.model_copy(update={"split": split, "order": order, "groups": {}})
