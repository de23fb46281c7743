"""The id that a request goes by in its answer and in the logs."""

import random
import re

from graphql_api.domain.cards import has_card_number

HEADER = b"x-request-id"
MAX_CHARACTERS = 128
_PRINTABLE = re.compile(rb"[ -~]+")


def of_header(header: bytes | None) -> str:
    """The beginning of the caller's own id if it is printable ASCII and no card number, else a new one."""
    if header is not None and _PRINTABLE.fullmatch(header := header[:MAX_CHARACTERS]):
        request_id = header.decode("ascii")
        if not has_card_number(request_id):
            return request_id
    return random.getrandbits(128).to_bytes(16, "big").hex()
