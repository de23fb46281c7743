"""Trusted documents: what a file of them may look like, and what runs."""

import json
from hashlib import sha256

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.limits.trusted import NOT_TRUSTED, TrustedDocuments

ONE, TWO = "{ one }\n", "query Two { two }"
HASH = sha256(ONE.encode()).hexdigest()


@pytest.fixture
def load(tmp_path):
    def load(content, name="documents.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return TrustedDocuments.load(path)

    return load


MANIFEST = {
    "format": "apollo-persisted-query-manifest",
    "version": 1,
    "operations": [{"id": "1", "name": "One", "type": "query", "body": ONE}, {"id": "2", "body": TWO}],
}


@pytest.mark.parametrize("content", [MANIFEST, {"1": ONE, "2": TWO}, [ONE, TWO]])
def test_documents_are_found_by_their_text_and_its_hash(load, content):
    trusted = load(content)

    assert trusted.find(ONE, None) == ONE
    assert trusted.find(" " + TWO + "\n", None) == TWO
    assert trusted.find(None, HASH) == ONE
    assert trusted.find(None, f"sha256:{HASH}") == ONE
    assert trusted.find(ONE, HASH) == ONE


@given(
    before=st.text(" \t\r\n", max_size=3),
    after=st.text(" \t\r\n", max_size=3),
    sent_before=st.text(" \t\r\n", max_size=3),
    sent_after=st.text(" \t\r\n", max_size=3),
    spell=st.sampled_from([str.lower, str.upper]),
    prefix=st.sampled_from(["", "sha256:"]),
)
def test_the_right_hash_is_accepted_whatever_white_space_surrounds_the_document(
    before, after, sent_before, sent_after, spell, prefix
):
    text, sent = f"{before}{{ one }}{after}", f"{sent_before}{{ one }}{sent_after}"
    trusted = TrustedDocuments([("1", text), ("2", TWO)])

    def name(of):
        return prefix + spell(sha256(of.encode()).hexdigest())

    for known in (text, "{ one }"):
        assert trusted.find(None, name(known)) == text
        assert trusted.find(sent, name(known)) == text
    assert trusted.find(sent, name(sent)) == text
    with pytest.raises(GraphQLError):
        trusted.find(TWO, name(sent))


def test_documents_that_differ_by_white_space_around_them_are_one(load):
    trusted = load({"1": ONE, "2": ONE.strip()})
    assert trusted.find(ONE, "2") == trusted.find(ONE.strip(), "1") == trusted.find(None, "2") == ONE


@pytest.mark.parametrize("content", [MANIFEST, {"1": ONE, "2": TWO}])
def test_documents_are_found_by_the_ids_that_they_were_given(load, content):
    assert load(content).find(None, "2") == TWO


def test_a_file_may_be_one_document(load):
    trusted = load(b"query A { a }\nquery B { b }\n", "documents.graphql")

    assert trusted.find("query A { a }\nquery B { b }", None) == "query A { a }\nquery B { b }\n"


@pytest.mark.parametrize(
    ("query", "document_id"),
    [
        (None, None),
        ("", None),
        ("{ other }", None),
        ("{ one two }", None),
        ("{one}", None),
        (None, ""),
        (None, "3"),
        (None, "B"),
        ("{ other }", HASH),
        (TWO, HASH),
        (ONE, "3"),
    ],
)
def test_nothing_else_runs(load, query, document_id):
    with pytest.raises(GraphQLError) as refused:
        load({"1": ONE, "2": TWO, "b": TWO}).find(query, document_id)

    assert refused.value.extensions == {"code": NOT_TRUSTED}
    assert refused.value.message == "This document is not in the list of trusted documents."


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{ one }",
        b"\xff",
        b"[" * 100_000,
        None,
        1,
        "{ one }",
        [1],
        [None],
        [[ONE]],
        {"1": None},
        {"1": {"body": ONE}},
        {**MANIFEST, "operations": [ONE]},
        {**MANIFEST, "operations": [{"id": 1, "body": ONE}]},
        {**MANIFEST, "operations": [{"id": "1"}]},
    ],
    ids=str,
)
def test_a_file_of_another_form_is_refused_in_one_line(load, content):
    with pytest.raises(
        ValueError,
        match=r"^the file must be a \.graphql document, .* manifest(; this is not valid JSON: .* in line 1, .*)?$",
    ):
        load(content)


@pytest.mark.parametrize("content", [[], {}, {**MANIFEST, "operations": []}])
def test_a_file_without_documents_is_refused(load, content):
    with pytest.raises(ValueError, match=r"^contains no document$"):
        load(content)


def test_a_document_that_is_none_is_refused_by_its_id(load):
    with pytest.raises(ValueError, match=r"^the document 'x', line 1, cannot be parsed: Syntax Error: Expected Name"):
        load({"x": "{ one"})


def test_two_documents_with_one_id_are_refused(load):
    with pytest.raises(ValueError, match=r"^two documents have the id 1$"):
        load({**MANIFEST, "operations": [{"id": "1", "body": ONE}, {"id": "1", "body": TWO}]})


def test_the_same_document_twice_is_one(load):
    assert load([ONE, ONE]).find(ONE, None) == ONE
