"""Apollo's inline trace, "ftv1": how long each resolver took, in the answer to a router that asks for it.

Strawberry makes the trace. graphql-core has to run the operation, since compiled execution does not call resolvers one
by one.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from graphql import MiddlewareManager
from strawberry.extensions.tracing.apollo_federation import ApolloFederationTracingExtension

HEADER, VALUE = b"apollo-federation-include-trace", b"ftv1"


class FieldTrace(ApolloFederationTracingExtension):
    """The trace of one execution. It has the locations of errors but not their messages, as in Apollo Server."""

    def __init__(self) -> None:
        super().__init__()
        self.middleware = MiddlewareManager(self)

    @contextmanager
    def recording(self) -> Generator[None]:
        """The time of the execution."""
        yield from self.on_operation()

    def _check_should_trace(self) -> bool:
        return True

    def _make_error(self, e: Exception, info: Any) -> Any:  # noqa: ARG002
        return super()._make_error(Exception("<masked>"), info)
