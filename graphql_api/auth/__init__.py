"""Authenticates access tokens: token → `Caller`. The domain decides what the caller may do."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from time import time
from typing import Self

from graphql_api.auth.access_tokens import AccessToken, InvalidTokenError, Requirements, Verified, mint
from graphql_api.auth.keyring import Keyring
from graphql_api.auth.keys import FileKeys, Keys, remote_keys, watched_file
from graphql_api.auth.router_secret import RouterSecret
from graphql_api.domain.caller import ANONYMOUS_ADMIN, UNAUTHENTICATED, Caller
from graphql_api.domain.errors import UnavailableError

__all__ = ["Authenticator", "InvalidTokenError", "RouterSecret", "mint"]

# Exactly one token: a repeated header arrives joined by a comma and is refused.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._-]+) *", re.IGNORECASE)


class Authenticator:
    """Turns `Authorization` headers into callers."""

    def __init__(self, keys: Keys | None, requirements: Requirements, *, max_cached: int = 10_000) -> None:
        """Without keys, authentication is disabled. Up to `max_cached` verified tokens are cached."""
        self._keys = keys
        self._requirements = requirements
        self._max_cached = max_cached
        self.cache_hits = self.cache_misses = 0
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()  # by the header's hash, so that no token is stored
        if keys is not None:
            keys.on_change = self._verified.clear

    @classmethod
    def open(
        cls,
        *,
        enabled: bool,
        jwks_url: str | None = None,
        jwks_file: Path | None = None,
        secret: str | None = None,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> AbstractAsyncContextManager[Self]:
        """Authenticate with keys from one of these sources until the context ends. A key server may be down.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file contains no keys, or the secret is invalid.
        """
        keys = _keys(jwks_url, jwks_file, secret) if enabled else nullcontext()
        return cls._with(keys, Requirements(issuer, audience))

    @classmethod
    @asynccontextmanager
    async def _with(
        cls, keys: AbstractAsyncContextManager[Keys | None], requirements: Requirements
    ) -> AsyncGenerator[Self]:
        async with keys as current:
            yield cls(current, requirements)

    @property
    def has_keys(self) -> bool:
        """Whether there are keys to verify access tokens."""
        return self._keys is not None and self._keys.ring is not None

    @property
    def problem(self) -> str | None:
        """Why the last attempt to fetch the keys failed; None if it did not."""
        return self._keys.problem if self._keys else None

    def caller(self, authorization: bytes | None) -> Caller | Awaitable[Caller]:
        """The caller with this `Authorization` header. Repeated headers arrive joined by a comma.

        Returns immediately, unless a token names an unknown key, which may need a fetch from the key server.

        Raises:
            InvalidTokenError: the header has no acceptable access token.
            UnavailableError: no keys have been fetched.
        """
        if self._keys is None:
            return ANONYMOUS_ADMIN
        if authorization is None:
            return UNAUTHENTICATED
        digest = hashlib.blake2b(authorization, digest_size=32).digest()  # takes half as long as SHA-256
        verified = self._verified.get(digest)
        if verified is None or verified.expires <= time():
            self.cache_misses += 1
            return self._verify(self._keys, authorization, digest)
        self.cache_hits += 1
        self._verified.move_to_end(digest)
        return verified.caller

    def _verify(self, keys: Keys, authorization: bytes, digest: bytes) -> Caller | Awaitable[Caller]:
        token = AccessToken(_bearer(authorization), _ring(keys).algorithms)
        if token.key_id is None or _ring(keys).knows(token.key_id):
            return self._accept(keys, token, digest)
        return self._look_and_accept(keys, token, token.key_id, digest)

    async def _look_and_accept(self, keys: Keys, token: AccessToken, key_id: str, digest: bytes) -> Caller:
        await keys.look_for(key_id)
        return self._accept(keys, token, digest)

    def _accept(self, keys: Keys, token: AccessToken, digest: bytes) -> Caller:
        key = _ring(keys).key(token.key_id, token.algorithm)
        if key is None:
            raise InvalidTokenError("The access token is signed with an unknown key.")
        verified = token.verify(key, self._requirements)
        if len(self._verified) >= self._max_cached:
            self._verified.popitem(last=False)
        self._verified[digest] = verified
        return verified.caller


def _keys(url: str | None, file: Path | None, secret: str | None) -> AbstractAsyncContextManager[Keys]:
    if url is not None:
        return remote_keys(url)
    if file is not None:
        return watched_file(FileKeys(file))
    if secret is not None:
        return nullcontext(Keys(Keyring.of_secret(secret)))
    raise ValueError("authentication needs a key: a URL, a file or a secret")


def _ring(keys: Keys) -> Keyring:
    if keys.ring is None:
        raise UnavailableError("Access tokens cannot be verified right now, because no keys have been fetched.")
    return keys.ring


def _bearer(authorization: bytes) -> bytes:
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise InvalidTokenError(
            "The Authorization header must be `Bearer` followed by one access token, such as `Bearer eyJ...`."
        )
    return match[1]
