"""Verifies access tokens, and makes them for development.

`keys` and `keyring` provide the keys.
"""

import re
from copy import copy
from dataclasses import dataclass
from time import time
from typing import Any, cast

import orjson
from joserfc import jws, jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jwk import Key, OctKey

from graphql_api.domain.caller import SCOPES, Caller
from graphql_api.domain.errors import UnauthenticatedError

KEY_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"}
)
SECRET_ALGORITHMS = frozenset({"HS256"})

MAX_TOKEN_BYTES = 8 * 1024
MAX_SUBJECT_LENGTH = 255  # characters, as many as a user id may have
LEEWAY = 10  # seconds that the issuer's clock may be ahead; expiry gets no leeway

_TYPES = frozenset({"jwt", "at+jwt"})
# A token must not name the location of its own key, and no extensions are supported.
_FORBIDDEN_PARAMETERS = frozenset({"crit", "b64", "jku", "jwk", "x5c", "x5u"})
# Key ids are not paths. Some issuers use a SHA-256 in Base64, slashes included.
_KEY_ID = re.compile(r"[A-Za-z0-9._~:@+=-]{1,128}|[A-Za-z0-9+/]{43}=")


class InvalidTokenError(UnauthenticatedError):
    """The access token is refused. The message says why and quotes no part of the token."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """The required `iss` and `aud`, if configured."""

    issuer: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The caller of an access token, and its expiry (seconds since 1970)."""

    caller: Caller
    expires: float


class AccessToken:
    """A token with an acceptable header. Its claims are not trusted before `verify`."""

    def __init__(self, token: bytes, algorithms: frozenset[str]) -> None:
        """Parse a token that names one of these algorithms.

        Raises:
            InvalidTokenError: it is not a signed JSON Web Token, or not an access token.
        """
        self._registry = _REGISTRIES[algorithms]
        self._signed = _read(token, self._registry)
        header = cast("object", self._signed.protected)
        if not isinstance(header, dict):
            raise InvalidTokenError(_NO_TOKEN)
        self.algorithm, self.key_id = _checked(cast("dict[str, Any]", header), algorithms)

    def verify(self, key: Key, requirements: Requirements) -> Verified:
        """Verify the signature, then the claims.

        Raises:
            InvalidTokenError: the signature or a claim is invalid.
        """
        try:
            right = jws.validate_compact(self._signed, key, registry=self._registry)
        except (JoseError, ValueError):
            raise InvalidTokenError(_NO_TOKEN) from None
        if not right:
            raise InvalidTokenError("The access token's signature is invalid.")
        return _verified(self._signed.payload, requirements)


def mint(
    secret: str,
    sub: str,
    scopes: tuple[str, ...] = (),
    *,
    expires_in: float = 3600,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """An access token for development, signed with this secret; `expires_in` is in seconds."""
    now = int(time())
    claims = {
        "sub": sub,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + expires_in,
        "iss": issuer,
        "aud": audience,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    key = OctKey.import_key(secret)
    return jwt.encode({"alg": "HS256", "typ": "at+jwt"}, present, key, algorithms=SECRET_ALGORITHMS)


_NO_TOKEN = "The access token is not a signed JSON Web Token."  # noqa: S105 - a sentence


def _registry(algorithms: frozenset[str]) -> jws.JWSRegistry:
    """The JWS registry for these algorithms. Its limits allow long headers and signatures by 8,192-bit RSA keys."""
    registry = jws.JWSRegistry(algorithms=algorithms, strict_check_header=False)
    registry.max_header_length = registry.max_signature_length = 2048
    # joserfc warns that the name EdDSA does not say which curve is meant: here the key says it.
    eddsa = copy(registry.algorithms["EdDSA"])
    eddsa.security_warning = None
    registry.algorithms = {**registry.algorithms, "EdDSA": eddsa}
    return registry


_REGISTRIES = {algorithms: _registry(algorithms) for algorithms in (KEY_ALGORITHMS, SECRET_ALGORITHMS)}


def _read(token: bytes, registry: jws.JWSRegistry) -> jws.CompactSignature:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidTokenError(f"The access token is longer than {MAX_TOKEN_BYTES:,} bytes.")
    try:
        return jws.extract_compact(token, registry=registry)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise InvalidTokenError(_NO_TOKEN) from None


def _checked(header: dict[str, Any], algorithms: frozenset[str]) -> tuple[str, str | None]:
    """The algorithm and the key id of an acceptable header."""
    if found := sorted(_FORBIDDEN_PARAMETERS & header.keys()):
        raise InvalidTokenError(f"The access token's header contains `{found[0]}`, which is not accepted.")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise InvalidTokenError("The access token's `typ` is neither `JWT` nor `at+jwt`.")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidTokenError("The access token is signed with an algorithm that is not accepted.")
    key_id = header.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and _KEY_ID.fullmatch(key_id)):
        raise InvalidTokenError("The access token's `kid` is not a valid key id.")
    return algorithm, key_id


def _verified(payload: bytes, requirements: Requirements) -> Verified:
    claims = _claims(payload)
    try:
        _registered(requirements).validate(claims)
    except ExpiredTokenError:
        raise InvalidTokenError(_EXPIRED) from None
    except ClaimError as error:
        raise InvalidTokenError(f"The access token's claim `{error.claim}` is missing or invalid.") from None
    if claims["exp"] <= time():
        raise InvalidTokenError(_EXPIRED)
    return Verified(Caller(_subject(claims["sub"]), _scopes(claims)), claims["exp"])


_EXPIRED = "The access token has expired."


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims: object = orjson.loads(payload)
    except orjson.JSONDecodeError:
        claims = None
    if not isinstance(claims, dict):
        raise InvalidTokenError("The access token's claims are not a JSON object.")
    return cast("dict[str, Any]", claims)


def _registered(requirements: Requirements) -> jwt.JWTClaimsRegistry:
    """Checks the registered claims of RFC 7519."""
    options: dict[str, jwt.ClaimsOption] = {"exp": {"essential": True}, "sub": {"essential": True}}
    if requirements.issuer is not None:
        options["iss"] = {"essential": True, "value": requirements.issuer}
    if requirements.audience is not None:
        options["aud"] = {"essential": True, "value": requirements.audience}
    return jwt.JWTClaimsRegistry(None, LEEWAY, **options)


def _subject(sub: str) -> str:
    if len(sub) > MAX_SUBJECT_LENGTH or "\0" in sub:
        raise InvalidTokenError(f"The access token's `sub` has more than {MAX_SUBJECT_LENGTH} characters, or a NUL.")
    return sub


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The known scopes, from `scope` (space-separated) or `scp` (a list, or space-separated)."""
    found: object = claims["scope"] if "scope" in claims else claims.get("scp", "")
    if isinstance(found, str):
        return SCOPES.intersection(found.split(" "))
    if isinstance(found, list) and "scope" not in claims:
        return frozenset(scope for scope in SCOPES if scope in cast("list[object]", found))
    raise InvalidTokenError("The access token's scopes are neither text in `scope` nor a list in `scp`.")
