"""What one request may ask for, once its variables are known: entities, and all that their fields cost."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode

from graphql_api.limits.cost import Estimate
from graphql_api.limits.errors import DocumentTooComplexError
from graphql_api.limits.sizes import Variables

RequestCheck = Callable[[Variables], list[GraphQLError]]
Checks = Callable[[GraphQLSchema, DocumentNode, OperationDefinitionNode], RequestCheck]


@dataclass(slots=True)
class Spent:
    """What the requests of a batch have asked for so far."""

    representations: int = 0
    cost: int = 0


spent: ContextVar[Spent | None] = ContextVar("spent", default=None)
"""Set by whoever runs several requests that share their limits."""


def request_checks(*, max_representations: int, max_cost: int) -> Checks:
    """Makes the check of an operation, which is asked before each of its executions."""

    def of_operation(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> RequestCheck:
        estimate = Estimate(schema, document, operation)

        def check(variables: Variables) -> list[GraphQLError]:
            before = spent.get()
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
            return [DocumentTooComplexError(f"a cost of {cost:,}", max_cost, "MAX_COST")] if cost > max_cost else []

        return check

    return of_operation
