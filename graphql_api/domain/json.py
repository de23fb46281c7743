"""When two JSON values are the same."""

from typing import Any, cast


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; unlike Python's `==`, `true` is not `1`."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        objects = cast("tuple[dict[str, Any], dict[str, Any]]", (one, other))
        return one.keys() == other.keys() and all(is_same_json(objects[0][key], objects[1][key]) for key in objects[0])
    if isinstance(one, list) and isinstance(other, list):
        lists = cast("tuple[list[Any], list[Any]]", (one, other))
        return len(lists[0]) == len(lists[1]) and all(map(is_same_json, *lists))
    if (isinstance(one, float) and isinstance(other, int)) or (isinstance(one, int) and isinstance(other, float)):
        return float(one) == float(other)  # 6.656962598120811e16 comes back from the database as an integer
    return one == other
