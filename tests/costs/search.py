"""Looks for the request that costs the most for its length: a hill climb over random heads, bodies and documents."""

import gzip
import hashlib
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

import brotli
import orjson

from tests.costs.conftest import MAX_CPU_SECONDS, MAX_CPU_SECONDS_PER_BYTE
from tests.costs.shapes import each, each_link
from tests.costs.test_http import zstd

MAX_TARGET = 64 * 1024  # characters; more is refused by its length

Genome = dict[str, Any]
"""How many there are of what `COUNTS` names, and which one there is of what `CHOICES` names."""

PIECES = {
    "fields": "f# ",
    "same fields": "__typename ",
    "aliases": "a#: __typename ",
    "inline fragments": "... { __typename } ",
    "directives": "__typename @include(if: true) @skip(if: false) ",
    "unknown directives": "__typename @d# ",
    "arguments": "customerGatewayTokens(first: 1, last: #) { totalCount } ",
    "unknown arguments": "customerGatewayTokens(a#: 1) { totalCount } ",
    "lists": "customerGatewayToken(id: [[[[[#]]]]]) { id } ",
    "objects": "customerGatewayTokens(filter: {a: {b: {c: #}}}) { totalCount } ",
    "introspection": "a#: __schema { types { fields { args { name } } } } ",
    "schemas": "s#: _service { sdl } ",
    "entities": '_entities(representations: [{__typename: "User", id: "#"}]) { ... on User { id } } ',
}
# What stands below the entities that variables name.
BELOW = {
    "ids": "i#: id ",
    "lists of users": "l#: gatewayTokens { id } ",
    "tokens of users": 't#: gatewayToken(gateway: "S") { id user { id } } ',
    "tokens at no gateway": 'n#: gatewayToken(gateway: "?") { id } ',
    "users": "u#: gatewayTokens { user { gatewayTokens { user { gatewayTokens { user { id } } } } } } ",
}
ITEMS = {
    "users": lambda number: {"__typename": "User", "id": f"user-{number}"},
    "one user": lambda _: {"__typename": "User", "id": "rich"},
    "tokens": lambda number: {"__typename": "CustomerGatewayToken", "id": f"{number:032x}"},
    "tokens of customers": lambda number: {
        "__typename": "CustomerGatewayToken",
        "gateway": "S",
        "gatewayCustomerId": f"{number}",
    },
    "numbers": lambda number: number,
    "lists": lambda number: [[[[number]]]],
    "unknown types": lambda number: {"__typename": f"T{number}"},
    "wide objects": lambda number: {"__typename": "User", "id": "u", **{f"a{key}": number for key in range(50)}},
}
# Text that is quoted, scanned or skipped, over and over.
UNITS = [
    *("x", "4", "4 ", "4111111111111111x1", " ", "\t", "\n", ",", "#", "é", "😀", "\\", '"', "-", "_", "0-"),
    *(" did you mean", ", did you mean x", "?", "a.", "@", ":", "{", "}", ", but encountered error '", "'; found"),
]
PLACES = ["string", "block string", "comment", "white space", "variable", "operation name", "path", "body"]
BODIES = [
    "NEXT",
    "NEXT NEXT",
    "a: __typename NEXT NEXT",
    "... { NEXT } ... { NEXT }",
    "... on Query { NEXT NEXT NEXT }",
]
CODINGS = {
    "identity": lambda body: body,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
    "br": lambda body: brotli.compress(body, quality=1),
    "zstd": lambda body: zstd.compress(body, 1),
    "members of gzip": lambda body: gzip.compress(b"") * 999 + gzip.compress(body, 1),
}
WAYS = ["query", "batch", "persisted", "GET", "stripe", "adyen"]
# Header lines, and values of headers, over and over.
LINES = {"lines": "x-#: a\r\n", "same lines": "x: a\r\n", "long lines": f"x-#: {'a' * 500}\r\n"}
VALUES = {
    "accept": ("application/json", ", a/b;q=0.5"),
    "accept-encoding": ("gzip", ", br;q=0.5"),
    "content-type": ("application/json", "; a=b"),
    "authorization": ("Bearer ", "e30."),
    "x-request-id": ("a", " 4111 1111 1111 1111"),
    "cookie": ("a=b", "; a=b"),
    "stripe-signature": ("t=1", ",v1=aa"),
    "expect": ("100-continue", "x"),
}
COUNTS = {
    **dict.fromkeys(PIECES, 200),
    **dict.fromkeys(BELOW, 30),
    **dict.fromkeys(LINES, 95),
    **{name: 60_000 // len(unit) for name, (_, unit) in VALUES.items()},
    "items": 2000,
    "actions": 60_000,
    "levels": 49,
    "repeats": 1024 * 1024,
    "variables": 200,
    "chunk": 4096,
}
CHOICES = {
    "item": [*ITEMS],
    "unit": UNITS,
    "place": PLACES,
    "body": BODIES,
    "coding": [*CODINGS],
    "way": WAYS,
}
PLAIN: Genome = {**dict.fromkeys(COUNTS, 0), **{name: choices[0] for name, choices in CHOICES.items()}}

# What is changed together, by the part of a request.
PARTS = {
    "text": [("unit", "place", "repeats")],
    "document": [*((name,) for name in PIECES), ("levels", "body"), ("variables",)],
    "entities": [("items", "item"), ("actions",), *((name,) for name in BELOW)],
    "head": [(name,) for name in (*LINES, *VALUES)],
    "body": [("way",), ("coding",), ("chunk",)],
}


def mutated(genome: Genome, chance: random.Random, parts: Sequence[str]) -> Genome:
    """Another one like it, different in one of these parts."""
    changed = chance.choice(PARTS[chance.choice(parts)])
    return genome | {
        name: chance.choice(CHOICES[name]) if name in CHOICES else _scaled(genome[name], chance, COUNTS[name])
        for name in changed
    }


def _scaled(number: int, chance: random.Random, most: int) -> int:
    return min(most, chance.choice([0, number + 1, 2 * number + 1, 4 * number + 10, number // 2, most // 10, most]))


def text_of(genome: Genome) -> str:
    """The unit over and over, as it may stand in a document."""
    return genome["unit"] * (genome["repeats"] // len(genome["unit"]))


def document(genome: Genome) -> str:
    """The document."""
    text = text_of(genome)
    said = {
        "string": f'customerGatewayTokens(first: "{text}") {{ totalCount }} ',
        "block string": f'customerGatewayToken(id: """{text}""") {{ id }} ',
        "comment": f"#{text}\n",
        "white space": text,
    }
    said = said.get(genome["place"], "") if text else ""
    fields = "".join(each(genome[name], piece) for name, piece in PIECES.items())
    below = "".join(each(genome[name], piece) for name, piece in BELOW.items())
    variables = each(genome["variables"], "$v#: Int = 1 ")
    spread = links = ""
    if genome["items"]:
        variables += "$r: [_Any!]!"
        fields += f"_entities(representations: $r) {{ __typename ... on User {{ id {below} }} }} "
    if genome["actions"]:
        variables += "$a: [CustomerGatewayTokenAction!]"
        fields += "customerGatewayTokenEvents(filter: {actions: $a}) { pageInfo { hasNextPage } } "
    if genome["levels"]:
        spread = "...f0 "
        links = f"{each_link(genome['levels'], genome['body'])} fragment f{genome['levels']} on Query {{ __typename }}"
    return f"query A{f'({variables})' if variables else ''} {{ __typename {fields}{said}{spread}}} {links}"


def request(genome: Genome, salt: int, token: str | None = None) -> bytes:
    """The request, with this access token; with another salt, a document that is not known yet."""
    text, query = text_of(genome), document(genome) + " " * salt
    make = ITEMS[genome["item"]]
    variables = {"r": [make(number) for number in range(genome["items"])]} if genome["items"] else {}
    if genome["actions"]:
        variables["a"] = [f"CREATED{number}" for number in range(genome["actions"])]
    if genome["place"] == "variable":
        variables["text"] = text
    asked = {"query": query, "variables": variables}
    if genome["place"] == "operation name":
        asked["operationName"] = text
    method, target, way = "POST", "/graphql", genome["way"]
    if way == "persisted":
        name = hashlib.sha256(query.encode()).hexdigest()
        asked["extensions"] = {"persistedQuery": {"version": 1, "sha256Hash": name}}
    body = orjson.dumps([asked | {"query": query + " " * number} for number in range(10)] if way == "batch" else asked)
    if way == "GET":
        said = quote(orjson.dumps(variables).decode()[:MAX_TARGET])
        method, target, body = "GET", f"{target}?query={quote(query[:MAX_TARGET])}&variables={said}", b""
    elif way in {"stripe", "adyen"}:
        target = f"/webhooks/{way}"
    if genome["place"] == "body":
        body = text.encode()
    elif genome["place"] == "path":
        target = f"/{quote(text[:MAX_TARGET])}"
    return _head(genome, method, target, token) + _framed(CODINGS[genome["coding"]](body), genome["chunk"])


def _head(genome: Genome, method: str, target: str, token: str | None) -> bytes:
    lines = "".join(each(genome[name], line) for name, line in LINES.items())
    said = {name: before + unit * genome[name] for name, (before, unit) in VALUES.items() if genome[name]}
    said = {"host": "localhost", "connection": "close", "content-type": "application/json", **said}
    if token is not None:
        said["authorization"] = f"Bearer {token}"
    coding = genome["coding"].rpartition(" ")[2]
    if coding != "identity":
        said["content-encoding"] = coding
    lines += "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}".encode()


def _framed(body: bytes, chunk: int) -> bytes:
    if not chunk:
        return b"content-length: %d\r\n\r\n%b" % (len(body), body)
    chunks = [body[place : place + chunk] for place in range(0, len(body), chunk)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"transfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % framed


def score(seconds: float, size: int) -> float:
    """How many times what is promised."""
    return seconds / (MAX_CPU_SECONDS + MAX_CPU_SECONDS_PER_BYTE * size)


async def climb(
    measure: Callable[[Genome], Awaitable[float]],
    tries: int,
    seed: int,
    enough: float,
    parts: Sequence[str] = tuple(PARTS),
) -> tuple[float, Genome]:
    """The highest score that was found, and what it was.

    Args:
        measure: the score of a request
        tries: requests that are measured
        seed: of what is random
        enough: a score that ends the search
        parts: of a request, that differ
    """
    chance = random.Random(seed)
    current, current_score = PLAIN, 0.0
    best = (0.0, PLAIN)
    for number in range(tries):
        restart = number % 40 == 39
        candidate = mutated(PLAIN if restart else current, chance, parts)
        for _ in range(chance.randrange(3)):
            candidate = mutated(candidate, chance, parts)
        found = await measure(candidate)
        if found >= current_score or restart:
            current, current_score = candidate, found
        if found > best[0]:
            best = found, candidate
        if found > enough:
            break
    return best
