"""What a resolver knows about the field that is executed."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import strawberry
from graphql import GraphQLResolveInfo
from strawberry.types.field import StrawberryField

from graphql_api.engine.fields import strawberry_field
from graphql_api.engine.plan import FieldPlan
from graphql_api.engine.runtime import Run

if TYPE_CHECKING:
    from graphql_api.engine.paths import PathLink
    from graphql_api.engine.selection import Selection


class CompiledInfo(strawberry.Info):
    """Strawberry's Info, which costs little until more is asked of it than the context."""

    context: Any = None  # pyright: ignore[reportIncompatibleMethodOverride]
    """The context of the request."""

    def __init__(self, run: Run, plan: FieldPlan, above: "PathLink | None", key: str | int | None) -> None:
        self._run = run
        self._plan = plan
        self._above = above
        self._key = key
        self.context = run.context
        self.room = run.room
        self.selections: dict[str, Selection] = plan.selections
        """What is asked of the objects that the field returns, by the name of their type."""

    @property
    def field_name(self) -> str:
        """The field's name in the schema."""
        return self._plan.name

    @cached_property
    def _raw_info(self) -> GraphQLResolveInfo[Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._run.resolve_info(self._plan, self._plan.path_in(self._above, self._key))

    @property
    def _field(self) -> StrawberryField:  # pyright: ignore[reportIncompatibleVariableOverride]
        return cast("StrawberryField", strawberry_field(self._plan.definition))
