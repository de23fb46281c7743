"""Random operations on a schema, for Hypothesis: aliases, arguments, fragments, conditions, variables."""

from dataclasses import dataclass

from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
)
from hypothesis import strategies as st

VARIABLES = {
    "x": ("Int = 2", [1, 3, 0]),
    "s": ("String", ["v", "", None]),
    "n": ("[Int!]", [[1], [], None, 5]),
    "i": ("Filter", [{"a": 5, "maybe": None}, {"color": "VERT", "part": {}}, {"c": [1, 2]}, None]),
    "c": ("Color", ["BLUE", "VERT", None]),
    "w": ("DateTime", ["2020-01-01T00:00:00+00:00", None]),
    "f": ("Boolean! = false", [True, False]),
    "g": ("Boolean!", [True, False]),
}
LITERALS = {
    "Int": ["1", "2", "0", "$x"],
    "String": ["null", '"q"', "$s"],
    "[Int!]": ["[1, $x]", "5", "null", "$n"],
    "Filter": ["{a: $x}", "{}", "$i", "{c: [1], color: RED}", "{maybe: $s, part: {size: 2}}", "{a: 1, when: $w}"],
    "Color": ["RED", "VERT", "$c"],
    "DateTime": ['"2021-05-06T07:08:09Z"', "$w"],
}
CONDITIONS = ["@skip(if: $f)", "@include(if: $g)", "@include(if: true)", "@skip(if: $g) @include(if: $f)"]


PERCENT = st.integers(0, 99)


@dataclass(frozen=True)
class Request:
    query: str
    variables: dict


class _Writer:
    def __init__(self, draw, schema):
        self.draw = draw
        self.schema = schema
        self.fragments = []

    def chance(self, percent):
        return self.draw(PERCENT) < percent

    def pick(self, options):
        return options[self.draw(st.integers(0, len(options) - 1))]

    def condition(self):
        return f" {self.pick(CONDITIONS)}" if self.chance(12) else ""

    def arguments(self, field):
        given = [
            f"{name}: {self.pick(LITERALS[kind])}"
            for name, argument in field.args.items()
            if (kind := str(argument.type).rstrip("!")) in LITERALS and self.chance(50)
        ]
        return f"({', '.join(given)})" if given else ""

    def selections(self, type_, depth):
        if isinstance(type_, GraphQLUnionType | GraphQLInterfaceType):
            parts = [
                f"... on {possible.name}{self.condition()} {self.selections(possible, depth)}"
                for possible in self.schema.get_possible_types(type_)
                if self.chance(80)
            ]
            parts.append("__typename")
            if isinstance(type_, GraphQLInterfaceType):
                parts.append("id")
        else:
            names, heads = list(type_.fields), {}
            parts = [self.field(type_, self.pick(names), depth, heads) for _ in range(self.draw(st.integers(1, 5)))]
            if self.chance(20):
                parts.append("__typename")
        return "{ " + " ".join(parts) + " }"

    def field(self, parent, name, depth, heads):
        field = parent.fields[name]
        type_ = get_named_type(field.type)
        composite = isinstance(type_, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)
        if composite and depth <= 0:
            return "__typename"
        key = self.pick(["k", "l", "m"]) if self.chance(25) else name
        head = name + self.arguments(field)
        if heads.setdefault(key, head) != head:  # two fields under one key merge only where they are the same
            key = f"{key}{len(heads)}"
            heads[key] = head
        below = f" {self.selections(type_, depth - 1)}" if composite else ""
        return self.wrapped(parent, f"{'' if key == name else f'{key}: '}{head}{self.condition()}{below}")

    def wrapped(self, parent, text):
        """The field as it is, or in a fragment of either kind."""
        if self.chance(8):
            return f"... {self.condition()} {{ {text} }}"
        if self.chance(8):
            self.fragments.append(f"fragment F{len(self.fragments)} on {parent.name} {{ {text} }}")
            return f"...F{len(self.fragments) - 1}{self.condition()}"
        return text


@st.composite
def requests(draw, schema, depth=3):
    """An operation, valid more often than not, with values for its variables."""
    writer = _Writer(draw, schema)
    kind, root = ("mutation", schema.mutation_type) if writer.chance(20) else ("query", schema.query_type)
    body = " ".join([writer.selections(root, depth), *writer.fragments])
    used = [name for name in VARIABLES if f"${name}" in body]
    declared = ", ".join(f"${name}: {VARIABLES[name][0]}" for name in used)
    query = f"{kind} Random{f'({declared})' if declared else ''} {body}"
    variables = {name: writer.pick(VARIABLES[name][1]) for name in used if name == "g" or writer.chance(60)}
    return Request(query, variables)
