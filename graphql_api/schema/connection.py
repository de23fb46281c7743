"""What all pages have in common (https://relay.dev/graphql/connections.htm)."""

import strawberry
from strawberry.federation.schema_directives import ListSize

from graphql_api.domain.errors import BadInputError

DEFAULT_SIZE, MAX_SIZE = 50, 500


@strawberry.federation.type(shareable=True, description="Whether a list continues, and from where.")
class PageInfo:
    """Where a page begins and ends."""

    has_next_page: bool = strawberry.field(description="Whether there are items after this page.")
    has_previous_page: bool = strawberry.field(description="Whether there are items before this page.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first item; null if the page is empty.")
    end_cursor: str | None = strawberry.field(description="The cursor of the last item; null if the page is empty.")


def page_info(page_cursors: list[str], *, has_next: bool, has_previous: bool) -> PageInfo:
    """The page with these cursors."""
    return PageInfo(
        has_next_page=has_next,
        has_previous_page=has_previous,
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
