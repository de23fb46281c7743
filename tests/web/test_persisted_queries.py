"""Documents by their hash: asked for, sent once, found from then on."""

import hashlib
import json

import pytest

from graphql_api.limits.trusted import TrustedDocuments
from graphql_api.web.http_errors import HTTPError
from graphql_api.web.parameters import Parameters
from graphql_api.web.persisted_queries import PersistedQueries
from tests.web.conftest import token

QUERY = "{ hello }"


def hash_of(query):
    return hashlib.sha256(query.encode()).hexdigest()


def extensions(query=QUERY, version=1, **more):
    return {"persistedQuery": {"version": version, "sha256Hash": hash_of(query), **more}}


async def ask(web, **body):
    return await web.post("/graphql", json=body, headers={"accept": "application/graphql-response+json"})


def codes(response):
    return [(error["message"], error["extensions"]["code"]) for error in response.json()["errors"]]


async def test_an_unknown_hash_is_answered_so_that_clients_send_the_document(web):
    response = await ask(web, extensions=extensions())
    assert response.status_code == 200
    assert codes(response) == [("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_document_that_was_sent_with_its_hash_is_found_by_it(web, method):
    answer = {"data": {"hello": "hello you"}}
    assert (await ask(web, query=QUERY, extensions=extensions())).json() == answer
    if method == "GET":
        response = await web.get("/graphql", params={"extensions": json.dumps(extensions())})
    else:
        response = await ask(web, extensions=extensions())
    assert response.json() == answer


@pytest.mark.parametrize("empty", ["", None])
async def test_an_empty_document_beside_a_hash_is_none(web, empty):
    await ask(web, query=QUERY, extensions=extensions())
    assert (await ask(web, query=empty, extensions=extensions())).json() == {"data": {"hello": "hello you"}}
    unknown = await ask(web, query=empty, extensions=extensions("{ caller }"))
    assert codes(unknown) == [("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")]


@pytest.mark.parametrize("persisted", [{"version": 1}, {"version": 1, "sha256Hash": None}, {}, "x", {"sha256Hash": 1}])
async def test_a_persisted_query_without_a_hash_is_told_so(web, persisted):
    response = await ask(web, extensions={"persistedQuery": persisted})
    assert response.status_code == 400
    assert codes(response) == [
        ("`query` is missing, and `extensions.persistedQuery` has no string `sha256Hash`.", "BAD_REQUEST")
    ]


async def test_a_hash_of_something_else_is_refused_and_not_remembered(web):
    other = "{ caller }"
    response = await ask(web, query=QUERY, extensions=extensions(other))
    assert response.status_code == 400
    assert codes(await ask(web, extensions=extensions(other))) == [
        ("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")
    ]


async def test_a_document_that_is_not_valid_is_not_remembered(web):
    for query in ("{", "{ nonsense }"):
        await ask(web, query=query, extensions=extensions(query))
        assert codes(await ask(web, extensions=extensions(query)))[0][0] == "PersistedQueryNotFound"


@pytest.mark.parametrize("name", [None, "C"])
async def test_a_valid_document_is_remembered_even_if_none_of_its_operations_was_chosen(web, name):
    query = "query A { hello } query B { caller }"
    refused = await ask(web, query=query, extensions=extensions(query), operationName=name)
    assert codes(refused)[0][1] == "GRAPHQL_VALIDATION_FAILED"
    answer = await ask(web, extensions=extensions(query), operationName="B")
    assert answer.json() == {"data": {"caller": None}}


@pytest.mark.parametrize("version", [{"version": version} for version in (2, "1", 0, True, None)] + [{}], ids=str)
async def test_another_version_is_not_supported(web, version):
    named = {"persistedQuery": {"sha256Hash": hash_of(QUERY), **version}}
    response = await ask(web, query=QUERY, extensions=named)
    assert response.status_code == 200
    assert codes(response) == [("PersistedQueryNotSupported", "PERSISTED_QUERY_NOT_SUPPORTED")]


async def test_beside_trusted_documents_nothing_is_remembered(graphql, web):
    graphql.made[-1].documents.trusted = TrustedDocuments([("a", "{ caller }\n")])
    for body in ({"query": QUERY, "extensions": extensions()}, {"extensions": extensions()}):
        assert codes(await ask(web, **body))[0][1] == "DOCUMENT_NOT_TRUSTED"
    for body in ({}, {"query": "{ caller }"}):
        answer = await ask(web, extensions=extensions("{ caller }"), **body)
        assert answer.json() == {"data": {"caller": None}}


async def test_one_caller_pushes_out_nothing_that_others_stored(graphql, web):
    graphql.made[-1].documents.persisted = PersistedQueries(max_documents=40)
    await ask(web, query=QUERY, extensions=extensions())
    for number in range(50):
        query = f'{{ hello(name: "{number}") }}'
        body = {"query": query, "extensions": extensions(query)}
        response = await web.post("/graphql", json=body, headers={"authorization": token()})
        assert response.status_code == 200
    assert (await ask(web, extensions=extensions())).json() == {"data": {"hello": "hello you"}}


def asked(query):
    return Parameters(query, None, None, None, hash_of(query), 1)


def test_the_store_is_bounded_by_documents_and_by_characters():
    few, small = PersistedQueries(max_documents=10), PersistedQueries(max_characters=1000)
    for number in range(100):
        few.remember(asked(f"{{ a{number} }}"), f"{{ a{number} }}")
        text = f"{{ {'a' * 90}{number:04} }}"
        small.remember(asked(text), text)
        small.remember(asked(text), text)
    large = "x" * 500
    small.remember(asked(large), large)

    def known(store, texts):
        found = 0
        for text in texts:
            try:
                found += store.find(asked(text)._replace(query=None)) == text
            except HTTPError:
                continue
        return found

    assert known(few, [f"{{ a{number} }}" for number in range(100)]) == 10
    assert known(small, [f"{{ {'a' * 90}{number:04} }}" for number in range(100)]) == 10
    assert known(small, [large]) == 0
