"""The idempotency keys that callers pass to gateways, so that a customer is created once."""

import hmac
from uuid import UUID


def idempotency_key(secret: bytes, user_id: str, gateway: str, generation: int) -> str:
    """The key of a claim: the same for every caller, and no other database's, since the secret is this one's.

    Args:
        secret: this database's
        user_id: whose customer is to be created
        gateway: where
        generation: which no other claim of this database has or had
    """
    text = "\0".join((str(generation), gateway, user_id))
    return str(UUID(bytes=hmac.digest(secret, text.encode(), "sha256")[:16], version=4))
