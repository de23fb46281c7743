"""MediaType types of GraphQL over HTTP: which one the caller wants, and whether what was sent is JSON."""

import re
from enum import Enum
from functools import lru_cache

from graphql_api.web.http_errors import HTTPError

_MAX_CACHED_CHARACTERS = 200
_CHARSETS = {"utf-8", "utf8", "us-ascii"}
_QUALITY = re.compile(r"0?\.\d{1,3}|0\.?|1(\.0{0,3})?")


_HEAD = (
    b"content-type: MEDIA_TYPE; charset=utf-8\r\ncontent-length: %d\r\ncache-control: private, no-store\r\n"
    b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n"
)


class MediaType(Enum):
    """What an answer may be, in the order that is used if the caller has no preference."""

    JSON = "application/json"
    GRAPHQL = "application/graphql-response+json"

    def __init__(self, name: str) -> None:
        self.head = _HEAD.replace(b"MEDIA_TYPE", name.encode())
        """The header lines of an answer, to be filled with its length and the id of its request."""


def acceptable(accept: bytes | None) -> MediaType:
    """The media type that an `Accept` header prefers; GraphQL's own only if the header names or prefers it.

    Raises:
        HTTPError: 406, the header accepts neither type.
    """
    if not accept or accept.isspace():
        return MediaType.JSON
    media = _preferred(accept) if len(accept) <= _MAX_CACHED_CHARACTERS else _preferred.__wrapped__(accept)
    if media is None:
        names = " or ".join(media.value for media in MediaType)
        raise HTTPError(406, "NOT_ACCEPTABLE", f"The service returns {names}. Include one of them in `Accept`.")
    return media


@lru_cache(maxsize=256)
def _preferred(accept: bytes) -> MediaType | None:
    ranges = [_parsed(part) for part in accept.decode("latin-1").split(",")]
    weights = {media: _weight(media, ranges) for media in MediaType}
    # Of two that are equally welcome GraphQL's own counts if it was named: only then it has the second's precision.
    best = max(weights, key=lambda media: (*weights[media], media is MediaType.GRAPHQL and weights[media][1] == _EXACT))
    return best if weights[best][0] > 0 else None


_EXACT = 3


def _weight(media: MediaType, ranges: list[tuple[str, dict[str, str]]]) -> tuple[float, int]:
    """The quality that the most precise matching range gives to the media type, and how precise it is."""
    precision = {"*": 1, "*/*": 1, "application/*": 2, media.value: _EXACT}
    found = [
        (precision[name], _quality(parameters))
        for name, parameters in ranges
        if name in precision and parameters.get("charset", "utf-8").lower() in _CHARSETS
    ]
    most, quality = max(found, default=(0, 0.0))
    return quality, most


def _quality(parameters: dict[str, str]) -> float:
    quality = parameters.get("q", "1")
    return float(quality) if _QUALITY.fullmatch(quality) else 0.0


def must_be_json(content_type: bytes | None) -> None:
    """Go on only with JSON in UTF-8. A form or a text would let any web page send requests in a user's name.

    Raises:
        HTTPError: 415, it is something else, or nothing says what it is.
    """
    if content_type == b"application/json":
        return
    name, parameters = _parsed((content_type or b"").decode("latin-1"))
    if name != "application/json":
        raise HTTPError(415, "UNSUPPORTED_MEDIA_TYPE", "Send the request as Content-Type: application/json.")
    if parameters.get("charset", "utf-8").lower() not in _CHARSETS:
        raise HTTPError(415, "UNSUPPORTED_MEDIA_TYPE", "Send the request in UTF-8.")


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """`Text/HTML; Charset="utf-8"` → `("text/html", {"charset": "utf-8"})`."""
    name, *parameters = text.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip().lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
