"""What all pages have in common (https://relay.dev/graphql/connections.htm)."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import strawberry
from strawberry.federation.schema_directives import ListSize

from graphql_api.domain.errors import BadInputError

DEFAULT_SIZE, MAX_SIZE = 50, 500


Known: TypeAlias = bool | Callable[[], Awaitable[bool]]
"""Whether there is something, or how to find out: it is asked only if the field is selected."""


def _has_next_page(root: Any) -> bool:
    return root.next_page if isinstance(root.next_page, bool) else root.next_page()


def _has_previous_page(root: Any) -> bool:
    return root.previous_page if isinstance(root.previous_page, bool) else root.previous_page()


@strawberry.federation.type(shareable=True, description="Whether a list continues, and from where.")
class PageInfo:
    has_next_page: bool = strawberry.field(
        resolver=_has_next_page, description="Whether there are items after this page."
    )
    has_previous_page: bool = strawberry.field(
        resolver=_has_previous_page, description="Whether there are items before this page."
    )
    start_cursor: str | None = strawberry.field(description="The cursor of the first item; null if the page is empty.")
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last item; null if the page is empty, except in the change feed."
    )
    next_page: strawberry.Private[Known]
    previous_page: strawberry.Private[Known]


def page_info(page_cursors: list[str], *, has_next: Known, has_previous: Known) -> PageInfo:
    """The page with these cursors."""
    return PageInfo(
        next_page=has_next,
        previous_page=has_previous,
        start_cursor=page_cursors[0] if page_cursors else None,
        end_cursor=page_cursors[-1] if page_cursors else None,
    )


def size(name: str, value: int | None) -> int:
    """How many items a page has; the default if the caller does not say.

    Raises:
        BadInputError: fewer than one or too many.
    """
    if value is None or value is strawberry.UNSET:
        return DEFAULT_SIZE
    if not 1 <= value <= MAX_SIZE:
        raise BadInputError(f"`{name}` must be between 1 and {MAX_SIZE}, not {value}.")
    return value


def paged(*slicing_arguments: str) -> ListSize:
    """Tells a router's demand control how long a page can be."""
    return ListSize(
        assumed_size=DEFAULT_SIZE,
        slicing_arguments=list(slicing_arguments),
        sized_fields=["edges", "nodes"],
        require_one_slicing_argument=False,
    )


def listed(assumed_size: int) -> ListSize:
    """Tells a router's demand control how long a list is that has no pages."""
    return ListSize(
        assumed_size=assumed_size,
        slicing_arguments=strawberry.UNSET,  # None would be printed as null, which no composition takes
        sized_fields=strawberry.UNSET,
        require_one_slicing_argument=False,
    )
