"""What a document may ask for, said before anything expensive is done with it. It knows GraphQL and nothing of tokens.

The parser limits the number of tokens. All else is counted here, in time linear in what these limits let through.
"""

from collections.abc import Callable
from dataclasses import dataclass

from graphql import DocumentNode, GraphQLError

from graphql_api.limits import counts
from graphql_api.limits.errors import TOO_COMPLEX, DocumentTooComplexError, limit_of
from graphql_api.limits.expansion import Expanded, TooManySelectionsError, expand
from graphql_api.limits.requests import request_checks

__all__ = ["TOO_COMPLEX", "checks", "limit_of", "request_checks"]

Check = Callable[[DocumentNode], list[GraphQLError]]


@dataclass(frozen=True, slots=True)
class _Limit:
    """How much of something may be, which environment variable says so, and how it is counted."""

    most: int
    variable: str
    what: str
    count: Callable[[Expanded], int]


def checks(
    *,
    max_operations: int,
    max_fragments: int,
    max_directives: int,
    max_variables: int,
    max_arguments: int,
    max_selections: int,
    max_depth: int,
    max_introspection_depth: int,
    max_introspection_lists: int,
    max_aliases: int,
    max_root_fields: int,
    max_repeated_fields: int,
) -> list[Check]:
    """What to ask of a document between parsing and validation. Fragments count wherever they are spread."""
    limits = [
        _Limit(max_operations, "MAX_OPERATIONS", "operations", counts.operations),
        _Limit(max_fragments, "MAX_FRAGMENTS", "fragments", counts.fragments),
        _Limit(max_directives, "MAX_DIRECTIVES", "directives", counts.directives),
        _Limit(max_variables, "MAX_VARIABLES", "variables", counts.variables),
        _Limit(max_arguments, "MAX_ARGUMENTS", "arguments in one place", counts.arguments),
        _Limit(max_depth, "MAX_DEPTH", "fields inside one another", counts.depth),
        _Limit(
            max_introspection_depth,
            "MAX_INTROSPECTION_DEPTH",
            "such fields of introspection",
            counts.introspection_depth,
        ),
        _Limit(
            max_introspection_lists, "MAX_INTROSPECTION_LISTS", "lists of introspection", counts.introspection_lists
        ),
        _Limit(max_aliases, "MAX_ALIASES", "aliases", counts.aliases),
        _Limit(max_root_fields, "MAX_ROOT_FIELDS", "fields at the root", counts.root_fields),
        _Limit(
            max_repeated_fields, "MAX_REPEATED_FIELDS", "repetitions of a field in its place", counts.repeated_fields
        ),
    ]

    def check(document: DocumentNode) -> list[GraphQLError]:
        try:
            expanded = expand(document, max_selections)
        except TooManySelectionsError:
            return [DocumentTooComplexError("more selections", max_selections, "MAX_SELECTIONS")]
        found = [(limit, limit.count(expanded)) for limit in limits]
        return [
            DocumentTooComplexError(f"{count:,} {limit.what}", limit.most, limit.variable)
            for limit, count in found
            if count > limit.most
        ]

    return [check]
