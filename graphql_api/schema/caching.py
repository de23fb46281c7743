"""`@cacheControl`, by which routers that cache by schema know that an answer is one user's own and never to be kept."""

from enum import Enum

import strawberry
from strawberry.schema_directive import Location


@strawberry.enum(description="Whose an answer is.")
class CacheControlScope(Enum):
    """Whose an answer is."""

    PUBLIC = strawberry.enum_value("PUBLIC", description="Anybody's.")
    PRIVATE = strawberry.enum_value("PRIVATE", description="The one user's who asked.")


@strawberry.federation.schema_directive(
    locations=[Location.OBJECT, Location.FIELD_DEFINITION],
    name="cacheControl",
    compose=True,
    import_url="https://the-guild.dev/mesh/v1.0",
)
class CacheControl:
    """How long, in seconds, and for whom an answer may be kept."""

    max_age: int
    scope: CacheControlScope


NEVER_SHARED = CacheControl(max_age=0, scope=CacheControlScope.PRIVATE)
