"""`@cacheControl`: tells routers that cache by schema that an answer belongs to one user and must not be stored."""

from enum import Enum

import strawberry
from strawberry.schema_directive import Location


@strawberry.enum(description="Who may receive a cached response.")
class CacheControlScope(Enum):
    PUBLIC = strawberry.enum_value("PUBLIC", description="Everyone.")
    PRIVATE = strawberry.enum_value("PRIVATE", description="Only the user whose request was cached.")


@strawberry.federation.schema_directive(
    locations=[Location.OBJECT, Location.FIELD_DEFINITION],
    name="cacheControl",
    compose=True,
    import_url="https://the-guild.dev/mesh/v1.0",
)
class CacheControl:
    """How long (`max_age`, in seconds) and for whom an answer may be cached."""

    max_age: int
    scope: CacheControlScope


NEVER_SHARED = CacheControl(max_age=0, scope=CacheControlScope.PRIVATE)
