"""Whether a request came through the gateway."""

import pytest

from graphql_api.auth import RouterSecret


@pytest.mark.parametrize("values", [["old"], ["old", "new"], ["new", "old"]])
def test_each_value_that_is_good_now_is_accepted(values):
    assert RouterSecret(values).accepts(b"old")


@pytest.mark.parametrize("header", [None, b"", b"ol", b"older", b"OLD", b" old", b"old,new", b"old\0", b"\xff"])
def test_anything_else_is_not(header):
    assert not RouterSecret(["old", "new"]).accepts(header)


@pytest.mark.parametrize("header", [None, b"", b"anything"])
def test_where_none_is_set_any_request_is_welcome(header):
    assert RouterSecret().accepts(header)


def test_a_secret_may_have_any_character():
    assert RouterSecret(["s€cret"]).accepts("s€cret".encode())
