"""Parses published key sets into the keys that can verify access tokens. It does no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from graphql_api.auth.access_tokens import KEY_ALGORITHMS, SECRET_ALGORITHMS

PublicKey = RSAKey | ECKey | OKPKey

MAX_KEYS = 100
MIN_RSA_BITS = 2048

_CURVES = frozenset({"P-256", "P-384", "P-521", "Ed25519", "Ed448"})
# Only the public part is read, even if a set contains more.
_PUBLIC_MEMBERS = frozenset({"kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y"})


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys and the algorithms that they may be used with."""

    keys: tuple[Key, ...]
    algorithms: frozenset[str]

    @classmethod
    def of_secret(cls, secret: str) -> Self:
        """A secret for HS256 only."""
        return cls((OctKey.import_key(secret),), SECRET_ALGORITHMS)

    @classmethod
    def of_json(cls, text: bytes) -> Self:
        """The keys of a JSON Web Key Set that can verify access tokens; others are ignored.

        Raises:
            ValueError: it is not a key set, or has no such key.
        """
        keys = tuple(_signing_keys(text))
        if not keys:
            raise ValueError("must be a JSON Web Key Set; this one has no public key that can verify a signature")
        return cls(keys, KEY_ALGORITHMS)

    def knows(self, key_id: str | None) -> bool:
        """Whether a key has this id. If no key has an id, every `kid` counts as known."""
        return key_id is None or key_id in self._names or not self._names

    def key(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key with this id. Without an id in the token or the keys, the only key for the algorithm."""
        fitting = [key for key in self.keys if JWSRegistry.filter_algorithms(key, [algorithm])]
        if key_id is not None and self._names:
            return next((key for key in fitting if key.kid == key_id), None)
        return fitting[0] if len(fitting) == 1 else None

    @property
    def _names(self) -> set[str]:
        return {key.kid for key in self.keys if key.kid is not None}


def _signing_keys(text: bytes) -> Iterator[PublicKey]:
    try:
        published: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("must be a JSON Web Key Set; this is not JSON") from None
    members = cast("dict[str, object]", published).get("keys") if isinstance(published, dict) else None
    if not isinstance(members, list):
        raise ValueError("must be a JSON Web Key Set; this has no list of keys")  # noqa: TRY004 - text of a wrong form, not a wrong type
    for member in cast("list[object]", members)[:MAX_KEYS]:
        key = _key(cast("dict[str, Any]", member)) if isinstance(member, dict) else None
        if key is not None and _may_sign(key):
            yield key


def _key(member: dict[str, Any]) -> PublicKey | None:
    """The public key of a member; None for symmetric, unknown and malformed keys."""
    public = {name: value for name, value in member.items() if name in _PUBLIC_MEMBERS}
    try:
        match public.get("kty"):
            case "RSA":
                return RSAKey.import_key(public)
            case "EC":
                return ECKey.import_key(public)
            case "OKP":
                return OKPKey.import_key(public)
            case _:
                return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _may_sign(key: PublicKey) -> bool:
    strong = key.public_key.key_size >= MIN_RSA_BITS if isinstance(key, RSAKey) else key.curve_name in _CURVES
    operations = key.get("key_ops")
    return strong and key.get("use", "sig") == "sig" and (operations is None or "verify" in operations)
