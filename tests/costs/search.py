"""Looks for the document that costs the most for its length: a hill climb over random documents under the limits."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.costs.conftest import MAX_CPU_SECONDS, MAX_CPU_SECONDS_PER_BYTE
from tests.costs.shapes import each, each_link

MAX_BYTES = 64 * 1024

# What is quoted, scanned or skipped: pieces of text that stand in strings, comments and names over and over.
UNITS = [
    *(
        "x",
        "4",
        "4 ",
        "4111111111111111x1",
        " ",
        "\t",
        "\n",
        ",",
        "#",
        "é",
        "😀",
        "\\u0041",
        '\\"',
        "\\\\",
        "-",
        "_",
        "0-",
    ),
    *(" did you mean", ", did you mean x", "?", "a.", "@", ":", "{", "}", ", but encountered error '", "'; found"),
]
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
    "entities": '_entities(representations: [{__typename: "User", id: "#"}]) { ... on User { id } } ',
}
BODIES = [
    "NEXT",
    "NEXT NEXT",
    "a: __typename NEXT NEXT",
    "... { NEXT } ... { NEXT }",
    "... on Query { NEXT NEXT NEXT }",
]


@dataclass(frozen=True)
class Genome:
    """What a document is made of: how many of each piece, a chain of fragments, and text over and over."""

    pieces: dict[str, int] = field(default_factory=dict)
    levels: int = 0
    body: str = BODIES[0]
    unit: str = "x"
    repeats: int = 0
    quoted: bool = True
    variables: int = 0

    def document(self) -> str:
        """The document."""
        variables = f"query({each(self.variables, '$v#: Int = 1 ')})" if self.variables else ""
        fields = "".join(each(count, PIECES[name]) for name, count in self.pieces.items())
        text = self.unit * self.repeats
        quoted = text.replace("\n", " ")
        said = f'customerGatewayTokens(first: "{quoted}") {{ totalCount }} ' if self.quoted else f"#{quoted}\n"
        chain = f"{each_link(self.levels, self.body)} fragment f{self.levels} on Query {{ __typename }}"
        spread, links = ("...f0 ", chain) if self.levels else ("", "")
        return f"{variables} {{ __typename {fields}{said}{spread}}} {links}"[:MAX_BYTES]

    def mutated(self, chance: random.Random) -> "Genome":
        """Another one like it."""
        match chance.randrange(6):
            case 0 | 1:
                name = chance.choice(list(PIECES))
                return replace(self, pieces={**self.pieces, name: _scaled(self.pieces.get(name, 0), chance, 200)})
            case 2:
                return replace(self, levels=_scaled(self.levels, chance, 49), body=chance.choice(BODIES))
            case 3:
                unit = chance.choice(UNITS)
                repeats = MAX_BYTES * chance.randrange(10) // 10 // len(unit)
                return replace(self, unit=unit, repeats=repeats, quoted=chance.random() < 0.7)
            case 4:
                return replace(self, repeats=_scaled(self.repeats, chance, MAX_BYTES // len(self.unit)))
            case _:
                return replace(self, variables=_scaled(self.variables, chance, 200), pieces={})


def _scaled(number: int, chance: random.Random, most: int) -> int:
    return min(most, chance.choice([0, number + 1, 2 * number + 1, 4 * number + 10, number // 2, most]))


def score(seconds: float, size: int) -> float:
    """How many times what is promised."""
    return seconds / (MAX_CPU_SECONDS + MAX_CPU_SECONDS_PER_BYTE * size)


def climb(measure: Callable[[str], float], tries: int, seed: int, enough: float) -> tuple[float, str]:
    """The highest score that was found, and its document.

    Args:
        measure: CPU seconds that a document takes
        tries: documents that are measured
        seed: of what is random
        enough: a score that ends the search
    """
    chance = random.Random(seed)
    current, current_score = Genome(), 0.0
    best = (0.0, "")
    for number in range(tries):
        restart = number % 40 == 39
        candidate = (Genome() if restart else current).mutated(chance)
        for _ in range(chance.randrange(3)):
            candidate = candidate.mutated(chance)
        document = candidate.document()
        found = score(measure(document), len(document.encode("utf-8", "replace")))
        if found >= current_score or restart:
            current, current_score = candidate, found
        best = max(best, (found, document))
        if best[0] > enough:
            break
    return best
