"""The change feed: the changes of all users' tokens, for one caller."""

from graphql_api.domain.filter import FeedFilter, Place
from graphql_api.service.tokens import Tokens
from graphql_api.storage.feed import FeedPage


async def events(service: Tokens, wanted: FeedFilter, *, size: int, after: Place | None) -> FeedPage:
    """At most `size` entries after this place, or from the oldest one on.

    Raises:
        UnauthenticatedError: there is no access token.
        ForbiddenError: the caller lacks the scope.
        BadInputError: there is no such place.
    """
    _begin(service)
    return await service.store.feed.page(after, size, wanted)


async def now(service: Tokens) -> FeedPage:
    """No entries: the place after all that are there. Raises as `events` does, but for the place."""
    _begin(service)
    place = await service.store.feed.now()
    return FeedPage([], place, place, has_more=False)


def _begin(service: Tokens) -> None:
    """What is read beside the entries is at least as new: a replica may not have it yet."""
    service.caller.authorize("Query.customerGatewayTokenEvents")
    service.reads = service.store
