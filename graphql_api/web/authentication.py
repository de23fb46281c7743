"""Authenticates requests: the router's secret, if required, and the caller's access token."""

from collections.abc import Awaitable

from graphql_api.auth import Authenticator, InvalidTokenError, RouterSecret
from graphql_api.domain.caller import Caller
from graphql_api.domain.errors import UnavailableError
from graphql_api.web.http_errors import HTTPError


class RequestAuthenticator:
    """Looks at the headers of a request, before anything else of it is read."""

    def __init__(self, router_secret: RouterSecret, authenticator: Authenticator) -> None:
        self._router_secret = router_secret
        self._authenticator = authenticator

    def admit(self, headers: dict[bytes, bytes]) -> Caller | Awaitable[Caller]:
        """Say who is asking: at once, unless the key server has to be asked.

        Raises:
            HTTPError: 401, it is not the router, or the access token is not good; 503, that cannot be known now.
        """
        secret = self._router_secret
        if secret.is_required and not secret.accepts(headers.get(b"router-authorization")):
            message = (
                "The Router-Authorization header is missing or wrong. Set it to ROUTER_SECRET, or send the request to"
                " the router."
            )
            raise _unauthenticated(message, "Router-Authorization")
        try:
            caller = self._authenticator.caller(headers.get(b"authorization") or None)
        except (InvalidTokenError, UnavailableError) as error:
            raise _refusal(error) from None
        return caller if isinstance(caller, Caller) else _later(caller)


async def _later(caller: Awaitable[Caller]) -> Caller:
    try:
        return await caller
    except (InvalidTokenError, UnavailableError) as error:
        raise _refusal(error) from None


def _refusal(error: InvalidTokenError | UnavailableError) -> HTTPError:
    if isinstance(error, UnavailableError):
        return HTTPError(503, "UNAVAILABLE", "Access tokens cannot be verified right now. Try again.")
    return _unauthenticated(str(error), f'Bearer error="invalid_token", error_description="{error}"')


def _unauthenticated(message: str, challenge: str) -> HTTPError:
    return HTTPError(401, "UNAUTHENTICATED", message, [(b"www-authenticate", challenge.encode("ascii"))])
