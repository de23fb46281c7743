"""graphql-core's executor as Strawberry configures it, for operations that are not compiled."""

from functools import cached_property
from typing import Any, cast

from graphql import ASTValidationRule, GraphQLError, GraphQLObjectType, is_non_null_type, located_error
from strawberry.execution import optimized_is_awaitable as is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql_api.engine.batching import Refusal
from graphql_api.engine.fields import refusal_of
from graphql_api.engine.size import MAX_ANSWER_ERRORS, AnswerTooLargeError, Room

__all__ = ["VALIDATION_RULES", "CoreExecutor", "is_awaitable"]

VALIDATION_RULES: tuple[type[ASTValidationRule], ...] = (MaybeNullValidationRule, OneOfInputValidationRule)


class CoreExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, which bounds the answer and computes a field's location once for all errors."""

    errors_left_out = 0
    """How many errors were not collected because there are enough."""

    room: Room
    """Where the objects of the answer are counted."""

    has_objects = False
    """Whether it has completed any."""

    @cached_property
    def _places(self) -> dict[int, tuple[Any, GraphQLError]]:
        """Located errors and the field nodes that they were made from, by the identity of the nodes."""
        return {}

    @cached_property
    def _refusals(self) -> dict[int, tuple[Any, Refusal | None]]:
        """The checks of fields that refuse parents, with the field nodes, by the identity of the nodes."""
        return {}

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, position_context: Any
    ) -> Any:
        """Resolve a field, unless its check refuses it: for thousands of parents, this takes a fraction of the time.

        Middleware sees every field.
        """
        known = self._refusals.get(id(field_details_list))
        if known is None:
            definition = self.schema.get_field(parent_type, field_details_list[0].node.name.value)
            refusal = refusal_of(definition) if definition and not self.middleware_manager else None
            known = self._refusals[id(field_details_list)] = (field_details_list, refusal)
        _, refusal = known
        if refusal is not None and (error := refusal(source, self.context_value)) is not None:
            return_type = parent_type.fields[field_details_list[0].node.name.value].type
            self.handle_field_error(error, return_type, field_details_list, path)
            return None
        return super().execute_field(parent_type, source, field_details_list, path, position_context)

    def handle_field_error(self, raw_error: Exception, return_type: Any, field_details_list: Any, path: Any) -> None:
        """Locate an error and collect it, or raise it if null is not allowed here."""
        if isinstance(raw_error, AnswerTooLargeError):
            raise raw_error
        if self.is_full:
            if is_non_null_type(return_type):
                raise raw_error if isinstance(raw_error, GraphQLError) else GraphQLError("")
            self.errors_left_out += 1
            return
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

    @property
    def is_full(self) -> bool:
        """Whether the maximum is reached, so that further errors are only counted."""
        return len(self.collected_errors.errors) >= MAX_ANSWER_ERRORS

    def collect(self, error: GraphQLError, path: Any) -> None:
        """Collect a located error, or only count it."""
        if self.is_full:
            self.errors_left_out += 1
        else:
            self.collected_errors.add(error, path)

    def complete_object_value(self, return_type: GraphQLObjectType, *arguments: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Complete an object, if the answer is not yet too large. One of introspection costs as much as two others."""
        self.has_objects = True
        self.room.count(2 if return_type.name.startswith("__") else 1)
        return super().complete_object_value(return_type, *arguments)

    def build_response(self, data: dict[str, Any] | None) -> Any:
        """Make the response; if there is no data, the error that says so may be one too many."""
        errors = self.collected_errors.errors
        self.errors_left_out += len(errors[MAX_ANSWER_ERRORS:])
        del errors[MAX_ANSWER_ERRORS:]
        return super().build_response(data)

    def end(self) -> list[GraphQLError]:
        """Return the errors of a finished execution, and break the executor's reference cycle."""
        self.async_helpers = cast("Any", None)  # its own methods, which resolvers are given
        return self.collected_errors.errors
