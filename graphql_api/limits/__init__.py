"""Limits on documents, checked before anything expensive happens. The package knows GraphQL and nothing about tokens.

The parser limits the number of tokens. This package counts everything else, in time linear in what the limits allow.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

from graphql import DocumentNode, GraphQLError

from graphql_api.engine.engine import DocumentCheck
from graphql_api.limits import counts
from graphql_api.limits.errors import TOO_COMPLEX, DocumentTooComplexError, limit_of
from graphql_api.limits.expansion import ExpandedDocument, TooManySelectionsError, expand
from graphql_api.limits.requests import Spent, request_checks, spent

__all__ = [
    "FOR_ROUTERS",
    "TOO_COMPLEX",
    "DocumentLimits",
    "DocumentTooComplexError",
    "Spent",
    "document_check",
    "limit_of",
    "request_checks",
    "spent",
]

FOR_ROUTERS = 10
"""How many times as much of what is counted up has room in what routers make."""


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """The limits of a document. The environment variable `MAX_X` sets `max_x`."""

    max_operations: int
    max_fragments: int
    max_directives: int
    max_variables: int
    max_arguments: int
    max_selections: int
    max_depth: int
    max_introspection_depth: int
    max_introspection_lists: int
    max_aliases: int
    max_root_fields: int
    max_repeated_fields: int

    @classmethod
    def from_settings(cls, settings: object) -> Self:
        """The limits from these settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def for_routers(self) -> Self:
        """The limits of a document that a router merged from several: ten times as many aliases and root fields."""
        return replace(
            self, max_aliases=FOR_ROUTERS * self.max_aliases, max_root_fields=FOR_ROUTERS * self.max_root_fields
        )

    def of_batches(self, *, for_routers: bool) -> dict[str, int]:
        """The limits that all documents of a batch share, by their variables."""
        room = FOR_ROUTERS if for_routers else 1
        return {
            "MAX_ALIASES": room * self.max_aliases,
            "MAX_INTROSPECTION_LISTS": room * self.max_introspection_lists,
        }


_COUNTED: dict[str, tuple[str, Callable[[ExpandedDocument], int]]] = {
    "max_operations": ("operations", counts.operations),
    "max_fragments": ("fragments", counts.fragments),
    "max_directives": ("directives", counts.directives),
    "max_variables": ("variables", counts.variables),
    "max_arguments": ("arguments of one field or object", counts.arguments),
    "max_depth": ("levels of fields", counts.depth),
    "max_introspection_depth": ("levels of introspection", counts.introspection_depth),
    "max_introspection_lists": ("lists of introspection", counts.introspection_lists),
    "max_aliases": ("aliases", counts.aliases),
    "max_root_fields": ("fields at the root", counts.root_fields),
    "max_repeated_fields": ("repetitions of a field", counts.repeated_fields),
}


def document_check(limits: DocumentLimits) -> DocumentCheck:
    """The check of a document between parsing and validation. A fragment counts wherever it is spread."""

    def check(document: DocumentNode) -> list[GraphQLError]:
        try:
            expanded = expand(document, limits.max_selections)
        except TooManySelectionsError:
            return [DocumentTooComplexError("too many selections", limits.max_selections, "MAX_SELECTIONS")]
        found = [(what, count(expanded), name) for name, (what, count) in _COUNTED.items()]
        return [
            DocumentTooComplexError(f"{number:,} {what}", most, name.upper())
            for what, number, name in found
            if number > (most := getattr(limits, name))
        ]

    return check
