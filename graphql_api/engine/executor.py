"""graphql-core's executor as Strawberry sets it up: what runs whatever is unusual."""

from functools import cached_property
from typing import Any, cast

from graphql import ASTValidationRule, GraphQLError, located_error
from strawberry.execution import optimized_is_awaitable as is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

__all__ = ["VALIDATION_RULES", "CoreExecutor", "is_awaitable"]

VALIDATION_RULES: tuple[type[ASTValidationRule], ...] = (MaybeNullValidationRule, OneOfInputValidationRule)


class CoreExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, which here looks for the place of a field in the document once, not for each error."""

    @cached_property
    def _places(self) -> dict[int, tuple[Any, GraphQLError]]:
        """Errors that say where fields stand, with what they were made of, by its identity."""
        return {}

    def handle_field_error(self, raw_error: Exception, return_type: Any, field_details_list: Any, path: Any) -> None:
        """Locate an error and collect it, or raise it where null may not stand."""
        error = located_error(raw_error, None, path.as_list())
        if error is not raw_error and error.source is None:
            known = self._places.get(id(field_details_list))
            if known is None:
                place = GraphQLError("", [details.node for details in field_details_list])
                known = self._places[id(field_details_list)] = (field_details_list, place)
            _, place = known
            error.nodes, error.source = place.nodes, place.source
            error.positions, error.locations = place.positions, place.locations
        super().handle_field_error(error, return_type, field_details_list, path)

    def end(self) -> list[GraphQLError]:
        """The errors of an execution that nothing is resolved for any more; then the executor is no cycle."""
        self.async_helpers = cast("Any", None)  # its own methods, which resolvers are given
        return self.collected_errors.errors
