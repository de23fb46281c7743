"""Fields that load by their parent: one function for a whole list of parents, and how graphql-core reaches it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from aiodataloader import DataLoader

from graphql_api.engine.selection import Selection

if TYPE_CHECKING:
    from graphql.pyutils import Path


Refusal: TypeAlias = Callable[[Any, Any], Exception | None]
"""Why a field is not loaded for a parent, in a context; None: it is. It is known at once."""

BatchFunction: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
"""`async def f(parents, info, *, selection, **arguments)`: one field for many parents at once, in their order. An
exception in the list is that parent's error."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The batch function of one field, and what is refused before it is asked."""

    function: BatchFunction
    refusal: Refusal | None = None

    async def values(
        self, parents: list[Any], info: Any, selection: Selection | None, arguments: Mapping[str, Any]
    ) -> Sequence[Any]:
        """The field's value for each parent."""
        values = await self.function(parents, info, selection=selection, **arguments)
        check_number(values, len(parents))
        return values

    def load(self, parent: Any, info: Any, arguments: dict[str, Any]) -> Awaitable[Any]:
        """The field's value for one parent, asked together with all that are asked for before the loop runs on.

        The loaders live in the request's context. One serves one place of one execution, where the arguments are the
        same for every parent; it keeps `info`, so that what its key was made of cannot be mistaken for something newer.
        """
        loaders: dict[Any, DataLoader[Any, Any]] = info.context.loaders
        key = _loader_key(info)
        loader = loaders.get(key)
        if loader is None:

            async def values(parents: list[Any]) -> list[Any]:
                return list(await self.values(parents, info, None, arguments))

            loader = loaders[key] = DataLoader(values, cache=False, get_cache_key=id)
        return loader.load(parent)


def check_number(values: Sequence[Any], parents: int) -> None:
    """Go on only with one value for each parent.

    Raises:
        ValueError: there are more, or fewer.
    """
    if len(values) != parents:
        raise ValueError(f"A batch function answered {len(values)} values for {parents} parents.")


def _loader_key(info: Any) -> tuple[Any, ...]:
    """Where in which execution a field stands, whatever the list index: the same for all parents that go together."""
    names: list[Any] = [id(info.variable_values)]
    path: Path | None = info.path
    while path is not None:
        if path.typename is not None:
            names += (path.typename, path.key)
        path = path.prev
    return tuple(names)
