"""What one request may ask for, once its variables are known: entities, and all that their fields cost."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode

from graphql_api.limits.cost import Estimate
from graphql_api.limits.errors import DocumentTooComplexError
from graphql_api.limits.sizes import Variables, said

_MAX_ALLOWED = 1000  # that are remembered of each operation

RequestCheck = Callable[[Variables], list[GraphQLError]]
Checks = Callable[[GraphQLSchema, DocumentNode, OperationDefinitionNode], RequestCheck]


@dataclass(slots=True)
class Spent:
    """What the requests of a batch have asked for so far."""

    representations: int = 0
    cost: int = 0


spent: ContextVar[Spent | None] = ContextVar("spent", default=None)
"""Set by the code that runs several requests with shared limits."""


def request_checks(*, max_representations: int, max_cost: int) -> Checks:
    """Makes the check of an operation, which is asked before each of its executions."""

    def of_operation(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> RequestCheck:
        estimate = Estimate(schema, document, operation)
        defaults = list(estimate.variables.items())
        only, absent = defaults[0] if len(defaults) == 1 else ("", None)
        allowed: set[int | tuple[int | None, ...] | None] = set()
        """Sizes of these variables that were not too much."""

        def check(variables: Variables) -> list[GraphQLError]:
            before = spent.get()
            if only:
                value = variables.get(only, absent)
                sizes = len(value) if type(value) is list else said(value)
            else:
                sizes = tuple([said(variables.get(name, default)) for name, default in defaults])
            if before is None and sizes in allowed:
                return []
            representations = before.representations if before else 0
            for size in estimate.representations:
                representations += size.of(variables)
            if representations > max_representations:
                return [
                    DocumentTooComplexError(
                        f"{representations:,} representations", max_representations, "MAX_REPRESENTATIONS"
                    )
                ]
            cost = estimate.cost.of(variables)
            if before:
                before.representations = representations
                before.cost = cost = before.cost + cost
            if cost > max_cost:
                return [DocumentTooComplexError(f"a cost of {cost:,}", max_cost, "MAX_COST")]
            if len(allowed) < _MAX_ALLOWED:
                allowed.add(sizes)
            return []

        return check

    return of_operation
