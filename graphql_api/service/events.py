"""The change feed: the changes of all users' tokens, for one caller."""

from graphql_api.domain.filter import FeedFilter, FeedPosition
from graphql_api.service.tokens import Tokens
from graphql_api.storage.feed import FeedPage


async def events(service: Tokens, wanted: FeedFilter, *, size: int, after: FeedPosition | None) -> FeedPage:
    """At most `size` entries after this position; from the oldest entry if it is None.

    Raises:
        UnauthenticatedError: there is no access token.
        ForbiddenError: the caller lacks the scope.
        BadInputError: this database has no such position.
    """
    _begin(service)
    return await service.store.feed.page(after, size, wanted)


async def now(service: Tokens) -> FeedPage:
    """An empty page at the position after the newest entry. Raises as `events` does, except for the position."""
    _begin(service)
    position = await service.store.feed.now()
    return FeedPage([], position, position, has_more=False)


def _begin(service: Tokens) -> None:
    """Read everything else of this request from the primary: a replica may lag behind the entries."""
    service.caller.authorize("Query.customerGatewayTokenEvents")
    service.reads = service.store
