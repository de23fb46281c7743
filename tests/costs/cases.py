"""Requests that an attacker would send, each of any size: add a row to `CASES` for whatever is found next.

A case makes its request for a number of bytes. The test sends it at two sizes: what it costs may grow only as they do.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.costs.shapes import chain, each, filled

KIB = 1024


@dataclass
class Request:
    """What is sent: a body as it is, or one made of a document."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/graphql"


@dataclass
class Case:
    """A kind of request; `caller` is nobody, a user with 120 tokens, or a service that may read everything."""

    name: str
    make: Callable[[int], Request]
    sizes: tuple[int, int] = (16 * KIB, 64 * KIB)
    caller: str | None = None


def asked(query: str, variables: dict[str, Any] | None = None, **more: Any) -> Request:
    """A request for this document."""
    return Request(orjson.dumps({"query": query, "variables": variables or {}, **more}))


def batch(make: Callable[[int, int], str]) -> Callable[[int], Request]:
    """Makes ten requests for different documents: what makes one is given its size and its number."""
    return lambda size: Request(orjson.dumps([{"query": make(size // 10, number)} for number in range(10)]))


def document(before: str, piece: str, after: str) -> Callable[[int], Request]:
    """Makes a document of as many pieces as there is room for."""
    return lambda size: asked(filled(size, before, piece, after))


def compressed(make: Callable[[int], Request]) -> Callable[[int], Request]:
    """Makes a request of fewer bytes than what it holds."""
    return lambda size: Request(gzip.compress(make(size).body), {"content-encoding": "gzip"})


def entities(
    fields: str, count: int, make: Callable[[int], dict[str, Any]], declared: str = "", **variables: Any
) -> Request:
    """A request for entities, which may have other variables."""
    query = f"query($r: [_Any!]! {declared}) {{ _entities(representations: $r) {{ {fields} }} }}"
    return asked(query, {"r": [make(number) for number in range(count)], **variables})


def users(fields: str, size: int) -> Request:
    """A request for as many users as there is room for, and as are allowed."""
    count = min(2000, size // 45)
    return entities(f"... on User {{ {fields} }}", count, lambda number: {"__typename": "User", "id": f"user-{number}"})


def oneself(fields: str, size: int) -> Request:
    """A request for the user with many tokens, which has a variable that nothing looks at."""
    query = f"query($r: [_Any!]!) {{ _entities(representations: $r) {{ ... on User {{ {fields} }} }} }}"
    return asked(query, {"r": [{"__typename": "User", "id": "rich"}], "padding": "x" * size})


def saved(number: int, metadata: Any) -> dict[str, Any]:
    """What saves a token."""
    return {"userId": f"u{number}", "gateway": "S", "gatewayCustomerId": f"c{number}", "metadata": metadata}


def nested(levels: int) -> str:
    """Tokens and their user, inside one another."""
    return "gatewayTokens { id user { " * levels + "id" + " } }" * levels


def text_of(unit: str) -> Callable[[int], Request]:
    """Makes an argument of the same text over and over, which messages quote."""
    return lambda size: asked('{ customerGatewayTokens(first: "' + unit * (size // len(unit)) + '") { totalCount } }')


LEAVES = (
    "id userId gateway gatewayCustomerId isActive createdAt updatedAt version deactivatedAt deactivationReason"
    " lastVerifiedAt"
)
LEAVES_OF_MANY = each(30, f'a#: gatewayToken(gateway: "G#") {{ {LEAVES} }} ')
DENIED = each(29, 'a#: gatewayToken(gateway: "S") { id } ')
MALFORMED = each(14, 'a#: gatewayToken(gateway: "?") { id } b#: gatewayTokens(gateway: "?") { id } ')

OF_ACTIONS = (
    "query($a: [CustomerGatewayTokenAction!]) {"
    " customerGatewayTokenEvents(filter: { actions: $a }) { pageInfo { hasNextPage } } }"
)
SAVING = (
    "mutation($inputs: [SaveCustomerGatewayTokenInput!]!) { saveCustomerGatewayTokens(inputs: $inputs) { created } }"
)


def names(count: int) -> list[str]:
    """Names that differ."""
    return [f"userI{number}" for number in range(count)]


CASES = [
    # What a document holds
    Case("text that looks like suggestions", text_of(" did you mean")),
    Case("text that looks like suggestions with ends", text_of(" did you mean x?")),
    Case("text that looks like a quoted exception", text_of(", but encountered error '")),
    Case("text that looks like card numbers", text_of("4111111111111111x1")),
    Case("text of digits", text_of("4")),
    Case("text of digits and spaces", text_of("4 ")),
    Case("text of escapes", text_of("\\u0041")),
    Case("an unexpected string", document('{ "', " did you mean", '" }'), sizes=(64 * KIB, 1000 * KIB)),
    Case("a comment", document("#", "x", "\n{ __typename }"), sizes=(64 * KIB, 1000 * KIB)),
    Case("comments", document("{ __typename } ", "#\n", "")),
    Case("commas", document("{", ",", " __typename }"), sizes=(64 * KIB, 1000 * KIB)),
    Case("a block string", document('{ f(a: """', "\n  x", '""") }'), sizes=(64 * KIB, 1000 * KIB)),
    Case("a block string of quotes", document('{ f(a: """', '\\"""', '""") }'), sizes=(64 * KIB, 1000 * KIB)),
    Case(
        "compressed lines of a block string",
        compressed(document('{ f(a: """', "\n  x", '""") }')),
        sizes=(190 * KIB, 760 * KIB),
    ),
    Case("compressed escapes", compressed(text_of("\\n")), sizes=(160 * KIB, 640 * KIB)),
    Case("compressed escapes by code point", compressed(text_of("\\u{41}")), sizes=(217 * KIB, 870 * KIB)),
    Case(
        "compressed inputs of one who may save nothing",
        compressed(lambda size: asked(SAVING, {"inputs": [saved(number, None) for number in range(size // 80)]})),
        sizes=(240 * KIB, 960 * KIB),
    ),
    Case("braces", document("", "{", "")),
    Case("lists", document("{ f(a: ", "[", ") }")),
    Case("a long name", document("{ ", "a", " }"), sizes=(64 * KIB, 1000 * KIB)),
    Case("long names", document("{ ", "a" * 129 + "# ", "}")),
    Case("a long number", document("{ customerGatewayTokens(first: 1", "1", ") { totalCount } }")),
    Case("unknown fields", document("{ ", "f# ", "}")),
    Case("repeated fields", document("{ ", "__typename ", "}")),
    Case("aliases", document("{ ", "a#: __typename ", "}")),
    Case("spreads", document("fragment f on Query { __typename } { ", "...f ", "}")),
    Case("fragments", document("{ __typename } ", "fragment f# on Query { __typename } ", "")),
    Case("inline fragments", document("{ ", "... { __typename } ", "}")),
    Case("directives", document("{ __typename ", "@include(if: true) ", "}")),
    Case("variables", document("query(", "$v#: Int ", ") { __typename }")),
    Case("arguments", document("{ customerGatewayTokens(", "a#: 1 ", ") { totalCount } }")),
    Case("fields of an object", document("{ customerGatewayTokens(filter: {", "a#: 1 ", "}) { totalCount } }")),
    Case("a chain of fragments", lambda size: asked(chain(min(49, size // KIB), "a: __typename NEXT NEXT"))),
    Case(
        "a chain of fragments in fields", lambda size: asked(chain(min(49, size // KIB), "... { NEXT } ... { NEXT }"))
    ),
    Case("the schema", lambda size: asked("{ " + each(30, "a#: _service { sdl } ") + "#" * size + "\n}")),
    # What batches hold
    Case(
        "a batch of unused variables",
        batch(lambda size, n: filled(size, f"query Q{n}(", "$v#: Int ", ") { __typename }")),
    ),
    Case("a batch of unknown fields", batch(lambda size, n: filled(size, f"query Q{n} {{ ", "f# ", "}"))),
    Case("a batch of fields", batch(lambda size, n: filled(size, f"query Q{n} {{ ", "... { __typename } ", "}"))),
    Case("a batch of mistakes", batch(lambda size, n: filled(size, f"query Q{n} {{ ", "f# ", "!"))),
    Case("a batch of comments", batch(lambda size, n: filled(size, f"query Q{n} {{ __typename", "#\n", "}"))),
    Case(
        "a batch of schemas",
        batch(lambda size, n: f"query Q{n} {{ {each(30, 'a#: _service { sdl } ')} #{'x' * size}\n}}"),
    ),
    # What variables hold
    Case("users that may not be read", lambda size: users(DENIED, size)),
    Case(
        "users that may not be read, by graphql-core, since a condition without a value is no program",
        lambda size: entities(
            f'... on User {{ {DENIED} }} }} other: customerGatewayToken(id: "") {{ id @skip(if: $no)',
            min(2000, size // 45),
            lambda number: {"__typename": "User", "id": f"user-{number}"},
            "$no: Boolean = true",
            no=None,
        ),
    ),
    Case("lists that may not be read", lambda size: users(each(30, "a#: gatewayTokens { id } "), size)),
    Case("others' lists", lambda size: users(each(30, "a#: gatewayTokens { id } "), size), caller="user"),
    Case("others' tokens", lambda size: users(DENIED, size), caller="user"),
    Case("others' tokens at a malformed gateway", lambda size: users(MALFORMED, size), caller="user"),
    Case("tokens at a malformed gateway", lambda size: users(MALFORMED, size), caller="service"),
    Case("ids of users", lambda size: users(each(30, "a#: id "), size)),
    Case(
        "aliases that look like card numbers",
        lambda size: users(f"a{'4111111111111111x1' * 7}: gatewayTokens {{ id }}", size),
    ),
    Case(
        "a long id", lambda size: entities("... on User { id }", 1, lambda _: {"__typename": "User", "id": "x" * size})
    ),
    Case(
        "an id of many characters",
        lambda size: entities(
            "... on User { gatewayTokens { id } }",
            1,
            lambda _: {"__typename": "User", "id": "".join(map(chr, range(1, min(size // 3, 0xD000))))},
        ),
        caller="service",
    ),
    Case(
        "a long gateway",
        lambda size: asked(
            '{ customerGatewayTokenByCustomer(gateway: "%s", gatewayCustomerId: "c") { id } }' % ("G" * size)
        ),
    ),
    Case(
        "a long variable",
        lambda size: asked("query($v: Int) { customerGatewayTokens(first: $v) { totalCount } }", {"v": "4" * size}),
    ),
    Case("many variables", lambda size: asked("{ __typename }", {f"v{number}": 1 for number in range(size // 10)})),
    Case("items of a wrong type", lambda size: asked(SAVING, {"inputs": [1] * (size // 2)})),
    Case("an input of unknown fields", lambda size: asked(SAVING, {"inputs": [dict.fromkeys(names(size // 12), 1)]})),
    Case("a batch of numbers", lambda size: Request(b"[" + b"1," * (size // 2) + b"1]"), sizes=(64 * KIB, 1000 * KIB)),
    Case("enum values that do not exist", lambda size: asked(OF_ACTIONS, {"a": ["CREATEDX"] * (size // 11)})),
    Case("a deep variable", lambda size: asked("{ __typename }", {"v": deep(min(size // 10, 200))})),
    Case("a long operation name", lambda size: asked("query A { __typename }", None, operationName="b" * size)),
    Case(
        "metadata of many keys",
        lambda size: asked(
            'mutation($m: JSON) { saveCustomerGatewayToken(input: {userId: "u", gateway: "S", gatewayCustomerId: "c",'
            " metadata: $m}) { userErrors { code } } }",
            {"m": {f"k{number}": number for number in range(size // 12)}},
        ),
        caller="service",
    ),
    Case(
        "metadata of numbers that have many digits",
        lambda size: asked(
            SAVING,
            {"inputs": [saved(number, {"a": [1e300] * 54}) for number in range(size // 450)]},
        ),
        caller="service",
    ),
    # What answers become
    Case("users inside one another", lambda size: oneself(nested(3), size), caller="user"),
    Case(
        "a user's tokens by many aliases, over and over",
        lambda size: entities(
            f"... on User {{ {LEAVES_OF_MANY} }}",
            min(500, size // 32),
            lambda _: {"__typename": "User", "id": "rich"},
        ),
        caller="user",
    ),
    Case(
        "a batch of users inside one another",
        lambda size: Request(b"[%b]" % b",".join([oneself(nested(3), size // 10).body] * 10)),
        caller="user",
    ),
    Case(
        "long values", lambda size: oneself(f"gatewayTokens {{ {each(28, 'a#: metadata ')} }}", size), caller="service"
    ),
    Case(
        "one user over and over",
        lambda size: entities(
            "... on User { gatewayTokens { id metadata } }",
            min(2000, size // 32),
            lambda _: {"__typename": "User", "id": "rich"},
        ),
        caller="service",
    ),
]


def deep(levels: int) -> Any:
    """Lists inside one another."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value
