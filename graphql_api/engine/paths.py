"""Response paths as linked tuples, which are much cheaper to make than graphql-core's `Path`."""

from typing import TypeAlias

from graphql.pyutils import Path

PathLink: TypeAlias = "tuple[PathLink | None, str | int, str | None]"
"""The path of the parent, the key below it, and the type of the object that the key belongs to."""


def core_path(path: PathLink) -> Path:
    """The path in graphql-core's form."""
    above, key, type_name = path
    return Path(None if above is None else core_path(above), key, type_name)


def keys_of(path: "PathLink | None") -> list[str | int]:
    """The keys from the root to here."""
    keys: list[str | int] = []
    while path is not None:
        keys.append(path[1])
        path = path[0]
    return keys[::-1]
