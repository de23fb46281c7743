"""Limits on a request with its variables: entities and cost."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode

from graphql_api.engine.engine import RequestChecks
from graphql_api.engine.operation import RequestCheck
from graphql_api.limits import counts
from graphql_api.limits.cost import Estimate
from graphql_api.limits.errors import DocumentTooComplexError
from graphql_api.limits.expansion import expand
from graphql_api.limits.sizes import Variables, size_in

_MAX_ALLOWED = 1000  # that are remembered of each operation

_SHARED = {
    "MAX_ALIASES": ("aliases", counts.aliases),
    "MAX_INTROSPECTION_LISTS": ("lists of introspection", counts.introspection_lists),
}


@dataclass(slots=True)
class Spent:
    """What the requests of a batch have asked for so far."""

    representations: int = 0
    cost: int = 0
    tokens: int = 0
    counted: Counter[str] = field(default_factory=Counter[str])


spent: ContextVar[Spent | None] = ContextVar("spent", default=None)
"""Set by the code that runs several requests with shared limits."""


def _shares(document: DocumentNode, most: Mapping[str, int]) -> Callable[[Spent], list[GraphQLError]]:
    """Adds what is counted of a document to that of its batch, and says if it is too much."""

    @cache
    def numbers() -> dict[str, int]:
        expanded = expand(document, sys.maxsize)
        return {variable: _SHARED[variable][1](expanded) for variable in most}

    def take(before: Spent) -> list[GraphQLError]:
        before.counted.update(numbers())
        return [
            DocumentTooComplexError(f"{number:,} {_SHARED[variable][0]} in the requests of a batch", limit, variable)
            for variable, limit in most.items()
            if (number := before.counted[variable]) > limit
        ]

    return take


def request_checks(
    *, max_representations: int, max_cost: int, of_batches: Mapping[str, int] | None = None
) -> RequestChecks:
    """Makes the check of an operation, which is asked before each of its executions.

    `of_batches` has by their variables the limits of what is counted in all documents of a batch.
    """

    def of_operation(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> RequestCheck:
        estimate = Estimate(schema, document, operation)
        defaults = list(estimate.variables.items())
        only, absent = defaults[0] if len(defaults) == 1 else ("", None)
        allowed: set[int | tuple[int | None, ...] | None] = set()
        """Sizes of these variables that were not too much."""
        take_share = _shares(document, of_batches or {})

        def check(variables: Variables) -> list[GraphQLError]:
            before = spent.get()
            if before is not None and (refusals := take_share(before)):
                return refusals
            if only:
                value = variables.get(only, absent)
                sizes = len(value) if type(value) is list else size_in(value)
            else:
                sizes = tuple([size_in(variables.get(name, default)) for name, default in defaults])
            if before is None and sizes in allowed:
                return []
            representations = before.representations if before else 0
            representations += sum([size.of(variables) for size in estimate.representations])
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
