"""Which media type a caller gets, and which one it may send."""

import pytest

from graphql_api.web.http_errors import HTTPError
from graphql_api.web.media_types import MediaType, acceptable, must_be_json

J, G = MediaType.JSON, MediaType.GRAPHQL


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, J),
        (b"*/*", J),
        (b"application/*", J),
        (b"application/json", J),
        (b"APPLICATION/JSON", J),
        (b"application/graphql-response+json", G),
        (b"application/graphql-response+json; charset=utf-8", G),
        (b'application/graphql-response+json;charset="UTF-8"', G),
        (b"application/graphql-response+json, application/json", G),
        (b"application/json, application/graphql-response+json", G),
        (b"application/json, application/graphql-response+json;q=0.9", J),
        (b"application/json;q=0.5, application/graphql-response+json;q=0.6", G),
        (b"application/graphql-response+json, */*", G),
        (b"application/json, */*", J),
        (b"application/json;q=0, */*", G),
        (b"text/html, application/xhtml+xml, */*;q=0.8", J),
        (b"application/graphql-response+json;q=0, application/json;q=0.001", J),
        (b"text/html, application/json;q=0.1", J),
        (b"application/json;charset=latin1, application/graphql-response+json;q=0.1", G),
        (b"", J),
        (b" ", J),
        (b"*", J),
        (b"*/*;q=.8", J),
        (b"application/graphql-response+json;q=.9, application/json;q=.8", G),
        (b"," * 1000 + b"application/graphql-response+json", G),
    ],
)
def test_a_caller_gets_the_media_type_that_it_prefers(accept, media):
    assert acceptable(accept) is media


@pytest.mark.parametrize(
    "accept",
    [
        b"text/html",
        b"application/json;q=0",
        b"application/json;q=nan",
        b"application/json;q=2",
        b"application/json;charset=latin1",
        b"*/*;q=0",
        b"text/event-stream, multipart/mixed",
        b"\xff\xfe",
    ],
)
def test_a_caller_that_takes_none_of_ours_is_told_which_there_are(accept):
    with pytest.raises(HTTPError, match="application/json or application/graphql-response") as refusal:
        acceptable(accept)
    assert refusal.value.status == 406


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json; charset=utf8; profile=x",
        b"application/json; charset=us-ascii",
    ],
)
def test_json_in_utf_8_is_read(content_type):
    must_be_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"text/plain",
        b"text/plain; application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/jsonp",
        b"application/graphql",
        b"application/graphql-response+json",
        b"application/json, text/plain",
        b"application/json; charset=utf-16",
        b"application/json; charset=iso-8859-1",
        b"\xff",
    ],
)
def test_nothing_but_json_in_utf_8_is_read(content_type):
    with pytest.raises(HTTPError) as refusal:
        must_be_json(content_type)
    assert refusal.value.status == 415
