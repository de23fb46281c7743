"""From an `Authorization` header to a caller, and what is remembered of it."""

from time import time

import pytest

from graphql_api import auth
from graphql_api.auth import Authenticator, InvalidTokenError, access_tokens
from graphql_api.auth.access_tokens import Requirements
from graphql_api.auth.keyring import Keyring
from graphql_api.auth.keys import Keys
from graphql_api.domain.caller import ANONYMOUS_ADMIN, UNAUTHENTICATED, Caller
from tests.auth.issuer import RSA, SECRET, bearer, token


@pytest.fixture
async def authenticator():
    async with Authenticator.open(enabled=True, secret=SECRET) as authenticator:
        yield authenticator


@pytest.fixture
def forgetful():
    """It remembers two tokens."""
    return Authenticator(Keys(Keyring.of_secret(SECRET)), Requirements(None, None), max_cached=2)


def no_verification(*_):
    raise AssertionError("verified again")


def test_without_a_header_nobody_is_asking(authenticator):
    assert authenticator.caller(None) is UNAUTHENTICATED


async def test_where_authentication_is_disabled_everybody_is_the_same_caller():
    async with Authenticator.open(enabled=False, secret=SECRET) as authenticator:
        for header in (None, b"", b"Bearer x", bearer(token())):
            assert authenticator.caller(header) is ANONYMOUS_ADMIN


def test_authentication_needs_a_key():
    with pytest.raises(ValueError, match="a URL, a file or a secret"):
        Authenticator.open(enabled=True)


def test_a_public_key_is_no_secret():
    with pytest.raises(ValueError, match="must not be used"):
        Authenticator.open(enabled=True, secret=RSA.as_pem(private=False).decode())


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_scheme_is_bearer_in_any_case(authenticator, scheme):
    assert authenticator.caller(scheme + token()) == Caller("user-1")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        token(),
        b"Basic dXNlcjpwYXNz",
        b"Bearer, " + token(),
        b"Bearer " + token() + b", Bearer " + token(),
        b"Bearer " + token() + b"," + token(),
        b"Bearer " + token() + b" " + token(),
        b"Bearer\t" + token(),
        b" Bearer " + token(),
        b"Bearer=" + token(),
        b'Bearer "' + token() + b'"',
        b"Bearer " + token() + b"\xff",
        b"Bearer Bearer " + token(),
    ],
)
def test_a_header_that_is_not_one_token_is_refused(authenticator, header):
    with pytest.raises(InvalidTokenError, match="one access token"):
        authenticator.caller(header)


def test_a_token_is_verified_once(authenticator, monkeypatch):
    header = bearer(token())
    first = authenticator.caller(header)
    monkeypatch.setattr(auth, "AccessToken", no_verification)

    assert authenticator.caller(header) is first


def test_a_remembered_token_ends_when_it_says(authenticator, monkeypatch):
    ends = time() + 60
    header = bearer(token(exp=ends))
    authenticator.caller(header)
    for module in (auth, access_tokens):
        monkeypatch.setattr(module, "time", lambda: ends)

    with pytest.raises(InvalidTokenError, match="expired"):
        authenticator.caller(header)


def test_a_bad_token_is_refused_each_time_and_pushes_no_good_one_out(forgetful, monkeypatch):
    good = bearer(token())
    forgetful.caller(good)
    head = token().rsplit(b".", 1)[0]
    for number in range(1000):
        with pytest.raises(InvalidTokenError):
            forgetful.caller(bearer(b"%s.%043d" % (head, number)))
    monkeypatch.setattr(auth, "AccessToken", no_verification)

    assert forgetful.caller(good) == Caller("user-1")


def test_the_tokens_used_last_are_remembered_up_to_a_bound(forgetful, monkeypatch):
    headers = [bearer(token(sub=f"user-{number}")) for number in range(3)]
    for number in (0, 1, 0, 2):
        forgetful.caller(headers[number])
    monkeypatch.setattr(auth, "AccessToken", no_verification)

    assert forgetful.caller(headers[0]) == Caller("user-0")
    assert forgetful.caller(headers[2]) == Caller("user-2")
    with pytest.raises(AssertionError, match="verified again"):
        forgetful.caller(headers[1])


def test_no_token_is_kept(authenticator):
    header = bearer(token())
    authenticator.caller(header)

    assert [len(digest) for digest in authenticator._verified] == [32]
    assert header.removeprefix(b"Bearer ").decode() not in repr(vars(authenticator))
