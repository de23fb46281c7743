"""What makes an access token acceptable, token by token."""

from time import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey

from graphql_api.auth import Authenticator, InvalidTokenError, mint
from graphql_api.auth.access_tokens import MAX_TOKEN_BYTES, Requirements
from graphql_api.auth.keyring import Keyring
from graphql_api.auth.keys import Keys
from graphql_api.domain.caller import Caller
from tests.auth.issuer import KEYS, RSA, SECRET, SECRET_KEY, bearer, es256, key_set, new_key, part, token

READ = frozenset({"gateway-tokens:read"})
at_leisure = settings(deadline=None)  # what a busy machine takes for one example says nothing


def by_secret(**requirements):
    return Authenticator(Keys(Keyring.of_secret(SECRET)), Requirements(**requirements))


def by_keys(*keys, **requirements):
    return Authenticator(Keys(Keyring.of_json(key_set(*keys))), Requirements(**requirements))


def refusal(authenticator, text):
    with pytest.raises(InvalidTokenError) as refused:
        authenticator.caller(bearer(text))
    return str(refused.value)


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_named_algorithm_of_a_key_is_accepted(algorithm):
    key = KEYS[algorithm]
    authenticator = by_keys(key)

    assert authenticator.caller(bearer(token(key, algorithm))) == Caller("user-1")


def test_the_secret_signs_with_hs256_alone():
    assert by_secret().caller(bearer(token())) == Caller("user-1")
    for algorithm in ("HS384", "HS512"):
        assert "algorithm" in refusal(by_secret(), token(SECRET_KEY, algorithm))


def test_a_token_that_is_signed_by_the_public_key_as_a_secret_is_refused():
    public = RSA.as_pem(private=False)
    forged = token(OctKey(public, public, {"kid": RSA.kid}), "HS256")

    assert "algorithm" in refusal(by_keys(RSA), forged)


def test_a_key_signs_with_its_own_kind_of_algorithm_alone():
    curve = ECKey.generate_key("P-256", {"kid": RSA.kid})

    assert "an unknown key" in refusal(by_keys(RSA), token(curve, "ES256"))


def test_where_a_secret_is_set_keys_sign_nothing():
    assert "algorithm" in refusal(by_secret(), token(RSA, "RS256"))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "RS1", "ES256K", "", None, 1, ["RS256"], {}])
def test_other_algorithms_are_refused(algorithm):
    for authenticator in (by_secret(), by_keys(RSA)):
        refusal(authenticator, token(header={"alg": algorithm, "kid": RSA.kid}))


def test_a_token_without_a_signature_is_refused():
    signed = token()
    unsigned = signed[: signed.rindex(b".") + 1]

    for text in (unsigned, unsigned[:-1], part({"alg": "none"}) + b"." + part({"sub": "u"}) + b"."):
        refusal(by_secret(), text)


def test_a_token_that_was_changed_is_refused():
    head, _, signature = token().split(b".")
    changed = b".".join([head, part({"sub": "admin", "exp": time() + 600}), signature])

    assert refusal(by_secret(), changed) == "The access token's signature is invalid."


def test_a_signature_by_another_key_of_the_same_name_is_refused():
    assert "signature" in refusal(by_keys(new_key("k")), es256(new_key("k")))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"b64": False},
        {"jwk": RSA.as_dict()},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/certificate"},
        {"x5c": ["MIIB"]},
        {"kid": "../../../dev/null"},
        {"kid": "/etc/passwd"},
        {"kid": "keys/one.pem"},
        {"kid": "https://attacker.example/keys"},
        {"kid": "C:\\keys"},
        {"kid": "k' or '1'='1"},
        {"kid": "k\0"},
        {"kid": "k\n"},
        {"kid": ""},
        {"kid": "k" * 129},
        {"kid": 1},
        {"kid": ["rsa-1"]},
        {"typ": "JWE"},
        {"typ": "id+jwt"},
        {"typ": "logout+jwt"},
        {"typ": ""},
        {"typ": None},
        {"typ": 1},
    ],
)
def test_a_header_that_asks_for_more_than_a_name_of_a_key_is_refused(header):
    refusal(by_secret(), token(header=header))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT", ...])
def test_an_access_token_may_say_what_it_is_in_several_ways(kind):
    assert by_secret().caller(bearer(token(header={"typ": kind}))) == Caller("user-1")


@pytest.mark.parametrize("kid", ["k", "2026-11-22T17:28:02Z", "a.b_c~d@e+f=", "A" * 43 + "=", "a/b+" * 10 + "a/b="])
def test_a_name_of_a_key_may_be_what_issuers_use(kid):
    key = new_key(kid)

    assert by_keys(key).caller(bearer(es256(key))) == Caller("user-1")


def test_a_header_whose_values_have_other_types_than_they_must_is_refused():
    assert refusal(by_secret(), token(header={"x5t": 1})) == "The access token is not a signed JSON Web Token."


def test_a_header_may_hold_what_means_nothing_here():
    header = {"x5t": "abc", "nonce": "n", "ver": 2, "cty": "x"}

    assert by_secret().caller(bearer(token(header=header))) == Caller("user-1")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"null", b"[]", b'["alg"]', b'"alg b64"', b"1", b"\xff", b'{"alg":' + b"[" * 1400],
)
def test_a_header_that_is_no_object_is_refused(header):
    assert refusal(by_secret(), token(raw_header=header)) == "The access token is not a signed JSON Web Token."


@pytest.mark.parametrize(
    "payload",
    [b" ", b"{", b"null", b"[]", b'"sub"', b"\xff", b"[" * 5000, b'{"exp":NaN}', b'{"sub":"u","exp":' + b"9" * 5000],
)
def test_claims_that_are_no_object_are_refused(payload):
    assert refusal(by_secret(), token(payload=payload)) == "The access token's claims are not a JSON object."


@pytest.mark.parametrize("exp", [..., None, "9999999999", True, [9999999999], {}, "", 0, -1, 1.5])
def test_a_token_says_by_a_number_when_it_ends(exp):
    refusal(by_secret(), token(exp=exp))


@pytest.mark.parametrize("exp", [b"1e400", b"-1e400", b"Infinity", b"-Infinity", b"NaN"])
def test_a_token_ends_at_a_finite_time(exp):
    refusal(by_secret(), token(payload=b'{"sub":"user-1","exp":' + exp + b"}"))


def test_an_expiry_is_taken_at_its_word():
    assert refusal(by_secret(), token(exp=time() - 0.01)) == "The access token has expired."
    assert refusal(by_secret(), token(exp=int(time()))) == "The access token has expired."
    assert by_secret().caller(bearer(token(exp=time() + 5))) == Caller("user-1")


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_the_issuers_clock_may_be_ahead_by_a_little(claim):
    assert by_secret().caller(bearer(token(**{claim: time() + 5}))) == Caller("user-1")
    for wrong in (time() + 60, "0", True, None):
        assert claim in refusal(by_secret(), token(**{claim: wrong}))


def test_the_issuer_must_be_the_one_that_is_set():
    authenticator = by_secret(issuer="https://issuer.example")

    assert authenticator.caller(bearer(token(iss="https://issuer.example"))) == Caller("user-1")
    for issuer in (..., None, "", "https://issuer.example/", ["https://issuer.example"], 1):
        assert "iss" in refusal(authenticator, token(iss=issuer))


def test_the_audience_must_name_the_one_that_is_set():
    authenticator = by_secret(audience="tokens")

    for audience in ("tokens", ["tokens"], ["other", "tokens"]):
        assert authenticator.caller(bearer(token(aud=audience))) == Caller("user-1")
    for audience in (..., None, "", "other", "tokens tokens", [], ["other"], [["tokens"]], {"tokens": 1}, 1):
        assert "aud" in refusal(authenticator, token(aud=audience))


def test_where_no_issuer_and_no_audience_are_set_any_will_do():
    assert by_secret().caller(bearer(token(iss="somebody", aud=["somewhere"]))) == Caller("user-1")


@pytest.mark.parametrize("sub", [..., None, "", 1, ["user-1"], "u" * 256, "u\0"])
def test_a_token_stands_for_somebody(sub):
    assert "sub" in refusal(by_secret(), token(sub=sub))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, frozenset()),
        ({"scope": "gateway-tokens:read"}, READ),
        ({"scope": "openid gateway-tokens:read  profile"}, READ),
        ({"scope": "gateway-tokens:read gateway-tokens:write"}, READ | {"gateway-tokens:write"}),
        ({"scope": "gateway-tokens:reader GATEWAY-TOKENS:READ gateway-tokens:read:x"}, frozenset()),
        ({"scope": ""}, frozenset()),
        ({"scp": ["gateway-tokens:read", "openid"]}, READ),
        ({"scp": "openid gateway-tokens:read"}, READ),
        ({"scp": [["gateway-tokens:read"], None, 1]}, frozenset()),
        ({"scp": []}, frozenset()),
        ({"scope": "openid", "scp": ["gateway-tokens:admin"]}, frozenset()),
    ],
)
def test_scopes_come_from_scope_or_scp(claims, scopes):
    assert by_secret().caller(bearer(token(**claims))) == Caller("user-1", scopes)


@pytest.mark.parametrize("claims", [{"scope": ["gateway-tokens:read"]}, {"scope": None}, {"scp": None}, {"scp": 1}])
def test_scopes_of_another_shape_are_refused(claims):
    assert "scopes" in refusal(by_secret(), token(**claims))


def test_a_token_has_a_bounded_size():
    assert f"{MAX_TOKEN_BYTES:,} bytes" in refusal(by_secret(), token(sub="u", padding="x" * MAX_TOKEN_BYTES))
    assert by_secret().caller(bearer(token(padding="x" * 5000))) == Caller("user-1")


def test_a_minted_token_is_accepted():
    minted = mint(SECRET, "service", ("gateway-tokens:read",), expires_in=60, issuer="me", audience="tokens")

    assert by_secret(issuer="me", audience="tokens").caller(bearer(minted.encode())) == Caller("service", READ)
    assert "signature" in refusal(Authenticator(Keys(Keyring.of_secret("x" * 32)), Requirements()), minted.encode())


@at_leisure
@given(st.one_of(st.binary(max_size=200), st.lists(st.binary(max_size=60).map(part), max_size=5).map(b".".join)))
def test_nothing_but_a_refusal_comes_of_any_other_bytes(text):
    refusal(by_secret(), text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@at_leisure
@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "x5c", "zip"]), json_values),
    st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "scope", "scp", "jti"]), json_values),
)
def test_nothing_but_a_caller_or_a_refusal_comes_of_any_signed_token(header, claims):
    text = token(header=header, **claims)
    for authenticator in (by_secret(), by_secret(issuer="i", audience="a")):
        try:
            assert isinstance(authenticator.caller(bearer(text)), Caller)
        except InvalidTokenError as refused:
            assert text not in str(refused).encode()  # noqa: PT017 - both ends are right
