"""What an operation selects of an object, for the resolver that fetches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orjson import Fragment as RawJSON

from graphql_api.engine.size import AnswerTooLargeError

__all__ = ["JSONField", "RawJSON", "Selection", "raw_json", "selection_of"]


class JSONField(NamedTuple):
    """A field of an object that can be written directly as JSON: `key`, and an attribute or a literal.

    The key is the name of the field, never an alias, because callers must not choose what SQL writes.
    """

    key: str
    attribute: str | None
    literal: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The sub-selection of a field for one type of object.

    `attributes` are the Python attributes that will be read; None if unknown. `json` is set if plain leaf attributes
    are selected and nothing else: the resolver may then return such an object, or a list of them, as `RawJSON`. If
    @skip and @include leave nothing, it is None. A selection is the same object each time its operation runs, so it
    can key a cache.
    """

    attributes: frozenset[str] | None
    json: tuple[JSONField, ...] | None


def raw_json(info: Any, texts: Sequence[str]) -> list[RawJSON]:
    """JSON texts that a resolver returns if its selection has `json`. Their length counts towards the answer's size.

    Raises:
        AnswerTooLargeError: they are too long.
    """
    room = info.room
    room.written += sum(map(len, texts))
    if room.written > room.max_bytes:
        raise AnswerTooLargeError(room.bounds)
    return list(map(RawJSON, texts))


def selection_of(info: Any, type_name: str | None = None) -> Selection | None:
    """What is selected of the objects that a resolver returns; None if unknown, so that it must load everything.

    `type_name` names the type in question if the field is a union or an interface.
    """
    selections: dict[str, Selection] = getattr(info, "selections", {})
    if type_name is None and len(selections) == 1:
        return next(iter(selections.values()))
    return selections.get(type_name or "")
