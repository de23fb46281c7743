"""What is read as the parameters of a GraphQL request, and what is refused."""

import json
from contextlib import suppress
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.web.http_errors import HTTPError
from graphql_api.web.parameters import Parameters, from_body, from_query_string

UNREADABLE = {
    "nothing": b"",
    "half of it": b'{"query": "{ a }"',
    "text": b"{ a }",
    "a string": b'"{ a }"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "a batch": b'[{"query": "{ a }"}]',
    "an empty batch": b"[]",
    "two values": b'{"query": "{ a }"} {"query": "{ a }"}',
    "other than UTF-8": b'{"query": "\xff"}',
    "a surrogate in UTF-8": b'{"query": "\xed\xa0\x80"}',
    "UTF-16": '{"query": "{ a }"}'.encode("utf-16"),
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"query": "{ a }"}',
    "a lone surrogate in the query": rb'{"query": "\ud800"}',
    "a lone surrogate in the operation's name": rb'{"query": "{ a }", "operationName": "\ud800"}',
    "a lone surrogate in a variable": rb'{"query": "{ a }", "variables": {"a": "\udfff"}}',
    "a lone surrogate in a variable's name": rb'{"query": "{ a }", "variables": {"\ud800": 1}}',
    "NaN": b'{"query": "{ a }", "variables": {"a": NaN}}',
    "Infinity": b'{"query": "{ a }", "variables": {"a": Infinity}}',
    "-Infinity": b'{"query": "{ a }", "variables": {"a": -Infinity}}',
    "a number beyond all": b'{"query": "{ a }", "variables": {"a": 1e400}}',
    "an integer of 5,000 digits": b'{"query": "{ a }", "variables": {"a": %s}}' % (b"9" * 5000),
    "arrays nested 100,000 deep": b'{"query": "{ a }", "variables": {"a": %s}}' % (b"[" * 100_000 + b"]" * 100_000),
    "objects nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a control character": b'{"query": "\x00"}',
    "single quotes": b"{'query': '{ a }'}",
    "a comment": b'{"query": "{ a }"} // hello',
    "a trailing comma": b'{"query": "{ a }",}',
    "no query": b"{}",
    "a misspelled query": b'{"qeury": "{ a }"}',
    "null for a query": b'{"query": null}',
    "a form": b"query=%7B+a+%7D",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_body_that_is_no_request_is_refused(body):
    with pytest.raises(HTTPError) as refusal:
        from_body(body)
    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["query", "operationName", "variables", "extensions", "documentId"])
@pytest.mark.parametrize("value", ["text", "1", "1.5", "true", "false", '"text"', "[]", '["a"]', '{"a": "b"}'])
def test_a_parameter_of_the_wrong_type_is_refused(name, value):
    right = (
        value in {"[]", "{}"} or value.startswith("{") if name in {"variables", "extensions"} else value.startswith('"')
    )
    others = "" if name == "query" else '"query": "{ a }", '
    body = f'{{{others}"{name}": {value}}}'.encode()
    if right:
        assert from_body(body).query
    else:
        with pytest.raises(HTTPError):
            from_body(body)


def test_a_refusal_says_what_the_limits_are():
    def refusal(body, most=10):
        with pytest.raises(HTTPError) as refused:
            from_body(body, most)
        return str(refused.value)

    one = b'{"query": "{ a }"}'
    assert (
        refusal(b"[%b,%b]" % (one, one), 1)
        == "A batch must have at least 1 and at most 1 requests (MAX_BATCH_REQUESTS)."
    )
    nested = b'{"query": "{ a }", "variables": {"a": %b%b}}'
    assert from_body(nested % (b"[" * 1022, b"]" * 1022))
    assert "at most 1,024 levels deep" in refusal(nested % (b"[" * 1023, b"]" * 1023))


def test_all_parameters_are_read():
    body = b'{"query": "{ a }", "operationName": "A", "variables": {"b": 1}, "extensions": {"c": 2}, "unknown": 3}'
    assert from_body(body) == Parameters("{ a }", "A", {"b": 1}, None)


def test_null_is_like_nothing():
    body = b'{"query": "{ a }", "operationName": null, "variables": null, "extensions": null, "documentId": null}'
    assert from_body(body) == Parameters("{ a }", None, None, None)


def test_of_a_name_that_is_given_twice_the_last_counts_as_in_every_other_reader_of_json():
    assert from_body(b'{"query": "{ a }", "query": "{ b }"}').query == "{ b }"


@pytest.mark.parametrize(
    "body", [b'{"documentId": "abc"}', b'{"extensions": {"persistedQuery": {"sha256Hash": "abc"}}}']
)
def test_a_document_may_be_named_by_its_id(body):
    asked = from_body(body)
    assert (asked.query, asked.document_id or asked.persisted_hash) == (None, "abc")


@pytest.mark.parametrize("nothing", ["[]", '""', "null"])
def test_what_clients_send_for_nothing_is_nothing(nothing):
    body = f'{{"query": "{{ a }}", "operationName": "", "variables": {nothing}, "extensions": {nothing}}}'.encode()
    assert from_body(body) == Parameters("{ a }", None, None, None)


def test_a_byte_order_mark_is_skipped():
    assert from_body(b'\xef\xbb\xbf{"query": "{ a }"}').query == "{ a }"


def test_a_batch_is_read_up_to_its_limit():
    one = b'{"query": "{ a }"}'
    assert [asked.query for asked in from_body(b"[%b,%b]" % (one, one), 2)] == ["{ a }"] * 2
    for refused, limit in ((b"[%b,%b]" % (one, one), 1), (b"[%b]" % one, 0), (b"[]", 2)):
        with pytest.raises(HTTPError) as refusal:
            from_body(refused, limit)
        assert refusal.value.status == 400


def read_or_refuse(read, sent):
    with suppress(HTTPError):
        assert isinstance(read(sent), Parameters)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["query", "variables", "extensions"]), inner),
    )
)
def test_whatever_json_is_sent_is_read_or_refused(value):
    read_or_refuse(from_body, json.dumps(value).encode())


@given(st.binary())
def test_whatever_bytes_are_sent_are_read_or_refused(sent):
    read_or_refuse(from_body, sent)
    read_or_refuse(from_query_string, sent)


def test_a_query_string_is_read():
    asked = urlencode({"query": "{ a }", "operationName": "A", "variables": '{"b": "ä"}', "extensions": "{}"})
    assert from_query_string(asked.encode()) == Parameters("{ a }", "A", {"b": "ä"}, None)


def test_parameters_that_are_not_of_graphql_may_occur_twice():
    assert from_query_string(b"query=a&foo=1&foo=2&variables=[]") == Parameters("a", None, None, None)


def test_empty_parameters_of_a_query_string_are_like_nothing():
    assert from_query_string(b"query=a&operationName=&variables=&extensions=") == Parameters("a", None, None, None)


@pytest.mark.parametrize(
    "query_string",
    [
        b"",
        b"query=",
        b"query=%ff",
        b"query=\xc3\xa4",
        b"query=%ED%A0%80",
        b"query=a&query=b",
        b"query=a&variables=1",
        b"query=a&variables=%7B",
        b"query=a&variables=%7B%22a%22:NaN%7D",
        b"query=a&variables=%7B%22a%22:" + b"9" * 5000 + b"%7D",
        b"query=a&extensions=%22a%22",
        b"&".join(b"a%d=1" % number for number in range(100)),
    ],
)
def test_a_query_string_that_is_no_request_is_refused(query_string):
    with pytest.raises(HTTPError) as refusal:
        from_query_string(query_string)
    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["operationName", "documentId"])
def test_names_have_at_most_128_characters(name):
    fits = orjson.dumps({"query": "{ a }", name: "x" * 128})
    assert from_body(fits)
    with pytest.raises(HTTPError, match=f"`{name}` can have at most 128 characters"):
        from_body(orjson.dumps({"query": "{ a }", name: "x" * 129}))
