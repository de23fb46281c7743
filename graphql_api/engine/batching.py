"""Batched fields: one function loads a field for a list of parents. graphql-core calls it through a data loader."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from aiodataloader import DataLoader

from graphql_api.engine.selection import Selection

if TYPE_CHECKING:
    from graphql.pyutils import Path


Refusal: TypeAlias = Callable[[Any, Any], Exception | None]
"""Why a field is not loaded for a parent, in a context; None: it is. It is known at once."""

JSONByKey: TypeAlias = tuple[str, Callable[..., Awaitable[Mapping[Any, str]] | None], str]
"""The attribute of a parent that is the key; `ask(context, keys, fields, **arguments)`, which finds the JSON by key, or
says None if anything is unusual, such as the caller's rights; the JSON of a key that is not found."""

BatchFunction: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
"""`async def f(parents, info, *, selection, **arguments)`: one field for many parents at once, in their order. An
exception in the list is that parent's error."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The batch function of one field, the check that refuses parents before it is called, and what replaces it."""

    function: BatchFunction
    refusal: Refusal | None = None
    by_key: JSONByKey | None = None

    async def values(
        self, parents: list[Any], info: Any, selection: Selection | None, arguments: Mapping[str, Any]
    ) -> Sequence[Any]:
        """The field's value for each parent."""
        values = await self.function(parents, info, selection=selection, **arguments)
        check_number(values, len(parents))
        return values

    def load(self, parent: Any, info: Any, arguments: dict[str, Any]) -> Awaitable[Any]:
        """The field's value for one parent, loaded together with those requested before the event loop's next turn.

        The loaders live in the request's context. Each serves one place of one execution, so the arguments are the same
        for every parent. It keeps `info`, so that the ids in its key cannot be reused for other objects.
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
    """Check that the function returned one value for each parent.

    Raises:
        ValueError: it returned more or fewer.
    """
    if len(values) != parents:
        raise ValueError(f"A batch function answered {len(values)} values for {parents} parents.")


def _loader_key(info: Any) -> tuple[Any, ...]:
    """The key of a batch: an execution and a place in its answer, without list indexes."""
    names: list[Any] = [id(info.variable_values)]
    path: Path | None = info.path
    while path is not None:
        if path.typename is not None:
            names += (path.typename, path.key)
        path = path.prev
    return tuple(names)
