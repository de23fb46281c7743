"""Which ids of callers are taken over."""

import pytest

from graphql_api.web.request_ids import of_header


@pytest.mark.parametrize("header", [b"a", b"0af7651916cd43dd8448eb211c80319c", b"a b/c:d=e", b"x" * 128])
def test_a_sane_id_is_taken_over(header):
    assert of_header(header) == header.decode()


def test_a_long_id_is_cut():
    assert of_header(b"x" * 129) == "x" * 128


@pytest.mark.parametrize("header", [None, b"", b"a\nb", b"a\x00", "ä".encode(), b"4111 1111 1111 1111"])
def test_without_a_sane_id_a_new_one_is_made(header):
    first, second = of_header(header), of_header(header)
    assert first != second
    assert len(first) == 32
