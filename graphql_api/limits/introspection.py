"""Introspection can be off: then the fields that describe the schema are refused, and say what to do instead."""

from typing import Any

from graphql import FieldNode, GraphQLError, ValidationRule

_FIELDS = {"__schema", "__type"}  # the only ways to a type of introspection


class NoIntrospectionRule(ValidationRule):
    """Refuses `__schema` and `__type`."""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        """Refuse a field that leads to introspection."""
        if (name := node.name.value) in _FIELDS:
            message = (
                f"Introspection is off, so {name} is not answered. Set INTROSPECTION=true in the service to turn it "
                "on, or query { _service { sdl } }, which returns the schema."
            )
            self.report_error(GraphQLError(message, node))
