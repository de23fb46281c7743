"""Which keys of a published set count."""

import warnings

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from graphql_api.auth.keyring import MAX_KEYS, Keyring
from tests.auth.issuer import RSA, key_set, new_key

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SHORT = RSAKey.generate_key(1024, {"kid": "short"})


def ids(ring):
    return [key.kid for key in ring.keys]


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    "other",
    [
        OctKey.generate_key(256, {"kid": "symmetric"}),
        SHORT,
        ECKey.generate_key("secp256k1", {"kid": "curve"}),
        OKPKey.generate_key("X25519", {"kid": "exchange"}),
        ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"}),
        ECKey.generate_key("P-256", {"kid": "ops", "key_ops": ["sign"]}),
        {"kty": "AKP", "kid": "post-quantum", "pub": "AA"},
        {**new_key("k").as_dict(), "x": "!"},
        {**new_key("k").as_dict(), "x": 1},
        {**new_key("k").as_dict(), "crv": "P-1"},
        {**new_key("k").as_dict(), "kid": 1},
        {**new_key("k").as_dict(), "use": "other"},
        {"kty": ["EC"]},
        {"kty": "RSA"},
        {},
    ],
)
def test_a_key_that_cannot_sign_access_tokens_is_left_out(other):
    good = new_key("good")

    assert ids(Keyring.of_json(key_set(other, good))) == ["good"]
    with pytest.raises(ValueError, match="no public key"):
        Keyring.of_json(key_set(other))


def test_a_key_may_say_that_it_is_for_signatures():
    key = ECKey.generate_key("P-256", {"kid": "k", "use": "sig", "key_ops": ["verify"], "alg": "ES256"})

    assert Keyring.of_json(key_set(key.as_dict())).key("k", "ES256") is not None


def test_of_a_key_that_is_published_whole_only_the_public_half_is_kept():
    ring = Keyring.of_json(key_set(RSA.as_dict(private=True)))

    assert not ring.keys[0].is_private


def test_a_key_for_one_algorithm_fits_no_other():
    ring = Keyring.of_json(key_set({**RSA.as_dict(), "alg": "RS512"}))

    assert ring.key(RSA.kid, "RS512") is not None
    assert ring.key(RSA.kid, "RS256") is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"keys"',
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[null,1,"k",[]]}',
        b"[" * 9999,
    ],
)
def test_what_is_no_key_set_is_refused(text):
    with pytest.raises(ValueError, match="must be a JSON Web Key Set"):
        Keyring.of_json(text)


def test_a_key_set_is_read_up_to_a_bound():
    ring = Keyring.of_json(key_set(*(new_key(f"k{number}") for number in range(MAX_KEYS + 1))))

    assert len(ring.keys) == MAX_KEYS


def test_a_token_without_a_name_takes_the_only_key_that_fits():
    one, two = new_key("one"), new_key("two")

    assert Keyring.of_json(key_set(one, RSA)).key(None, "ES256").kid == "one"
    assert Keyring.of_json(key_set(one, two)).key(None, "ES256") is None


def test_a_name_is_unknown_where_keys_have_others():
    ring = Keyring.of_json(key_set(new_key("one")))

    assert ring.knows("one")
    assert ring.knows(None)
    assert not ring.knows("two")
    assert ring.key("two", "ES256") is None


def test_where_keys_have_no_names_a_tokens_name_says_nothing():
    nameless = ECKey.generate_key("P-256")
    ring = Keyring.of_json(key_set({name: value for name, value in nameless.as_dict().items() if name != "kid"}))

    assert ring.knows("any")
    assert ring.key("any", "ES256") is not None


def test_the_same_keys_are_the_same_ring():
    one, two = new_key("one"), new_key("two")

    assert Keyring.of_json(key_set(one)) == Keyring.of_json(key_set(one))
    assert Keyring.of_json(key_set(one)) != Keyring.of_json(key_set(one, two))
    assert Keyring.of_json(key_set(new_key("one"))) != Keyring.of_json(key_set(one))
