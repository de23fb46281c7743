"""graphql-core's executor as Strawberry sets it up: what runs whatever is unusual."""

from functools import cached_property
from typing import Any, cast

from graphql import ASTValidationRule, GraphQLError, is_non_null_type, located_error
from strawberry.execution import optimized_is_awaitable as is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql_api.engine.batching import Refusal
from graphql_api.engine.fields import refusal_of
from graphql_api.engine.size import MAX_ANSWER_BYTES, MAX_ANSWER_ERRORS, OBJECT_BYTES, AnswerTooLargeError

__all__ = ["VALIDATION_RULES", "CoreExecutor", "is_awaitable"]

VALIDATION_RULES: tuple[type[ASTValidationRule], ...] = (MaybeNullValidationRule, OneOfInputValidationRule)


class CoreExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, which here bounds the answer and locates a field once, not for each error."""

    errors_left_out = 0
    """How many errors were not collected because there are enough."""

    answer_bytes = 0
    """What the objects of the answer count at least."""

    @cached_property
    def _places(self) -> dict[int, tuple[Any, GraphQLError]]:
        """Errors that say where fields stand, with what they were made of, by its identity."""
        return {}

    @cached_property
    def _refusals(self) -> dict[int, tuple[Any, Refusal | None]]:
        """What fields refuse at once, with what they were made of, by its identity."""
        return {}

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, position_context: Any
    ) -> Any:
        """Resolve a field, unless it is refused at once: for thousands of parents that takes a fraction of the time.

        Middleware is told of every field.
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
        """Whether further errors are only counted."""
        return len(self.collected_errors.errors) >= MAX_ANSWER_ERRORS

    def collect(self, error: GraphQLError, path: Any) -> None:
        """Note an error that is located, or count it."""
        if self.is_full:
            self.errors_left_out += 1
        else:
            self.collected_errors.add(error, path)

    def complete_object_value(self, *arguments: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Complete an object, as long as the answer may grow."""
        self.answer_bytes += OBJECT_BYTES
        if self.answer_bytes > MAX_ANSWER_BYTES:
            raise AnswerTooLargeError
        return super().complete_object_value(*arguments)

    def end(self) -> list[GraphQLError]:
        """The errors of an execution that nothing is resolved for any more; then the executor is no cycle."""
        self.async_helpers = cast("Any", None)  # its own methods, which resolvers are given
        return self.collected_errors.errors
