"""Documents that an attacker would send to this service, none longer than 64 KiB."""

SIZE = 64 * 1024

_TOKEN = 'customerGatewayToken(id: "x")'
_LONG_NAME = "userI" + "d" * 80


def _filled(before, piece, after):
    """As many pieces as fit; `#` in a piece is the number of its place."""
    length, pieces = len(before) + len(after), []
    while length < SIZE:
        pieces.append(piece.replace("#", str(len(pieces))))
        length += len(pieces[-1])
    return before + "".join(pieces[:-1]) + after


def _each(count, piece):
    return " ".join(piece.replace("#", str(number)) for number in range(count))


def _chain(levels, body, kind="Query", innermost="__typename"):
    """Fragments of which each spreads the next one where `body` says NEXT."""
    links = " ".join(
        f"fragment f{level} on {kind} {{ {body.replace('NEXT', f'...f{level + 1}')} }}" for level in range(levels)
    )
    return f"{links} fragment f{levels} on {kind} {{ {innermost} }}"


# Each asks for too much by its shape alone, however many tokens a document may have.
TOO_COMPLEX = {
    "deep fields": "{ " + _TOKEN + " { user { gatewayTokens " * 6 + "{ id }" + "} } " * 6 + "}",
    "deep introspection": "{ __schema { types { fields { type" + " { ofType" * 20 + " { name } " + "}" * 24,
    "introspection over and over": "{ "
    + _each(8, "a#: __schema { ...f }")
    + " } fragment f on __Schema { types { fields { args { name } } } }",
    "many aliases": "{ " + _each(31, "a#: __typename") + " }",
    "many aliases by way of a fragment": "{ a: _service { ...f } b: _service { ...f } } fragment f on _Service { "
    + _each(15, "a#: sdl")
    + " }",
    "many fields at the root": "{ " + _each(51, "f#") + " }",
    "many unknown fields": _filled("{ ", "f# ", "}"),
    "many operations": _filled("", "query q# { __typename } ", ""),
    "many fragments": _filled("{ __typename } ", "fragment f# on Query { __typename } ", ""),
    "many fragments in one place": "{ " + _each(51, "...f#") + " } " + _each(51, "fragment f# on Query { __typename }"),
    "many spreads of one fragment": _filled("fragment f on Query { __typename } { ", "...f ", "}"),
    "many spreads of unknown fragments": _filled("{ ", "...f# ", "}"),
    "many inline fragments": _filled("{ ", "... { __typename } ", "}"),
    "many directives on a field": _filled("{ __typename ", "@include(if: true) ", "}"),
    "many directives on an operation": _filled("query ", "@a# ", "{ __typename }"),
    "many directives on a variable": _filled("query ($v: Int ", "@a# ", ") { __typename }"),
    "many directives on a fragment": _filled("{ ...f } fragment f on Query ", "@a# ", "{ __typename }"),
    "a field over and over": _filled("{ ", "__typename ", "}"),
    "a field over and over, each with its own arguments": _filled(
        "{ ", 't: customerGatewayToken(id: "#") { id } ', "}"
    ),
    "a field over and over in one place of many": "{ " + (_TOKEN + "{ " + "id " * 9 + "} ") * 11 + "}",
    "a field over and over in a fragment that is not used": _filled(
        "{ __typename } fragment f on Query { ", "__typename ", "}"
    ),
    "a bomb of spreads below fields": "{ "
    + _TOKEN
    + " { ...f0 } } "
    + _chain(
        24, "user { gatewayTokens { NEXT } } again: user { gatewayTokens { NEXT } }", "CustomerGatewayToken", "id"
    ),
    "a bomb in a fragment that is not used": "{ __typename } "
    + _chain(
        24, "user { gatewayTokens { NEXT } } again: user { gatewayTokens { NEXT } }", "CustomerGatewayToken", "id"
    ),
    "a cycle through fields": "{ "
    + _TOKEN
    + " { ...f } } fragment f on CustomerGatewayToken { user { gatewayTokens { ...f } } }",
    "a ring of fragments": "{ ...f0 } " + _each(50, "fragment f# on Query { ...f }") + " fragment f on Query { ...f0 }",
    "a long chain of fragments": "{ ...f0 } " + _chain(600, "NEXT"),
    "a web of fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ {_each(50, '...f#')} }}" for n in range(50)),
    "many variables, each used": "query (" + _each(300, "$v#: Int") + ") { a(x: [" + _each(300, "$v#") + "]) }",
    "many variables that are not used": "query (" + _each(480, "$v#: Int") + ") { __typename }",
    "many arguments of one field": "{ customerGatewayToken(" + _each(640, "i#: 1") + ") { id } }",
    "one argument over and over": "{ customerGatewayToken(" + "id: 1 " * 640 + ") { id } }",
    "many fields of one object": "mutation { saveCustomerGatewayToken(input: { "
    + _each(600, _LONG_NAME + "#: 1")
    + " }) { created } }",
    "many fields of an object in a default": "query ($v: _Any = { " + _each(600, "a#: 1") + " }) { a(x: $v) }",
    "one field of an object over and over": "{ a(x: [{ y: { " + 'userId: "a" ' * 640 + "} }]) { b } }",
    "many arguments of one directive": "{ a @include(" + _each(640, "i#: 1") + ") }",
}
# No parser reads these to their end.
UNREADABLE = {
    "deep braces": "{ a" * (SIZE // 3),
    "deep brackets": "{ a(x: " + "[" * (SIZE - 10),
    "deep objects": "{ a(x: " + "{ a: " * (SIZE // 5 - 2),
    "deep lists of types": "query ($v: " + "[" * (SIZE - 12),
    "deep inline fragments": "{ " + "... { " * (SIZE // 6 - 1),
    "deep brackets that are closed": "{ a(x: " + "[" * 30_000 + "]" * 30_000 + ") }",
    "a string without an end": '{ a(x: "' + "x" * (SIZE - 10),
    "a block string without an end": '{ a(x: """' + "x\n" * (SIZE // 2 - 8),
    "nothing but quotes": '"' * SIZE,
    "nothing but commas": "," * SIZE,
    "nothing but a comment": "#" * SIZE,
    "nothing but dots": "." * SIZE,
    "nothing but brackets": "{" * SIZE,
    "nothing": "",
    "a control character": "{ __typename \0 }",
    "half a character": '{ __typename(x: "\\ud800") }',
}
# Long, and no more: each is answered, or refused for some other reason.
LONG = {
    "a long string": '{ customerGatewayToken(id: "' + "x" * (SIZE - 50) + '") { id } }',
    "a long block string": '{ customerGatewayToken(id: """' + "x\n" * (SIZE // 2 - 50) + '""") { id } }',
    "a string of escapes": '{ customerGatewayToken(id: "' + "\\u0041" * (SIZE // 6 - 10) + '") { id } }',
    "a long comment": "{ __typename # " + "x" * (SIZE - 20) + "\n}",
    "many comments": "{ __typename " + "#x\n" * (SIZE // 3 - 6) + "}",
    "many commas": "{ __typename " + "," * (SIZE - 20) + "}",
    "a long name": "{ " + "x" * (SIZE - 10) + " }",
    "a long name of an operation": "query " + "x" * (SIZE - 30) + " { __typename }",
    "a name nearly right": "{ customerGatewayToken" + "s" * (SIZE - 40) + " }",
    "a long number": "{ customerGatewayTokens(first: " + "9" * (SIZE - 80) + ") { nodes { id } } }",
    "a long number for anything": "query ($v: _Any = "
    + "9" * (SIZE - 100)
    + ") { _entities(representations: [$v]) { __typename } }",
    "a long number for a list": "{ _entities(representations: " + "9" * (SIZE - 80) + ") { __typename } }",
    "a long list": _filled("{ _entities(representations: [", "1 ", "]) { __typename } }"),
    "a long list of representations": _filled(
        "{ _entities(representations: [", '{ __typename: "User", id: "#" } ', "]) { __typename } }"
    ),
    "a long object": _filled("{ _entities(representations: [{ ", "a#: 1 ", "}]) { __typename } }"),
    "many variables": _filled("query (", "$v#: Int ", ") { __typename }"),
    "many uses of unknown variables": _filled("{ _entities(representations: [", "$v# ", "]) { __typename } }"),
    "many arguments": _filled("{ customerGatewayToken(", 'a#: "x" ', ") { id } }"),
    "many types": _filled("{ __typename } ", "type T# { a: Int } ", ""),
    "a list inside lists": "{ _entities(representations: " + "[" * 50 + "]" * 50 + ") { __typename } }",
}
# As many tokens as there may be, and nothing that a limit counts: validation has to cope.
WITHIN_THE_TOKENS = {
    "a list of numbers": "{ _entities(representations: [" + "1 " * 1980 + "]) { __typename } }",
    "a list of objects": "{ _entities(representations: ["
    + '{ __typename: "User", id: "1" } ' * 240
    + "]) { __typename } }",
    "objects": "{ _entities(representations: [" + ("{ " + _each(99, "a#: 1") + " } ") * 6 + "]) { __typename } }",
    "an object in objects": "{ _entities(representations: " + "{ a: " * 120 + "1" + " }" * 120 + ") { __typename } }",
    "variables that are not used": "query (" + _each(200, "$v#: Int") + ") { __typename }",
    "variables of a wrong type": "query ("
    + _each(200, "$v#: Int")
    + ") { _entities(representations: ["
    + _each(500, "$v7")
    + "]) { __typename } }",
    "variables that are not there": "{ _entities(representations: [" + _each(960, "$v#") + "]) { __typename } }",
    "arguments that are not there": "{ " + _each(6, f"a#: customerGatewayToken({_each(99, 'i#: 1')}) {{ id }}") + " }",
    "an argument over and over": "{ " + _each(6, f"a#: customerGatewayToken({'id: 1 ' * 99}) {{ id }}") + " }",
    "fields that are nearly there": "{ "
    + " ".join(f"a{n}: {_TOKEN} {{ {_each(30, 'createdA#')} }}" for n in range(25))
    + " }",
    "fragments that are not there": "{ " + _each(900, "...f#") + " }",
    "types that are nearly there": "{ " + _each(30, "... on Quer# { __typename }") + " }",
    "fields in conflict": "{ " + _each(30, "t: customerGatewayTokens(first: #) { totalCount nodes { id } }") + " }",
    "fields in conflict below": "{ " + _each(33, _TOKEN + ' { user { gatewayToken(gateway: "G#") { id } } }') + " }",
    "fragments in a chain": "{ ...f0 } " + _chain(49, "__typename NEXT"),
    "fragments that each spread all that come after them": "{ ...f0 } "
    + " ".join(
        f"fragment f{n} on Query {{ __typename {' '.join(f'...f{m}' for m in range(n + 1, 36))} }}" for n in range(36)
    ),
    "fields over and over, each with the fragment that has the next": "{ "
    + _TOKEN
    + " { ...f0 } } "
    + _chain(4, "user { " + "gatewayTokens { NEXT } " * 20 + "}", "CustomerGatewayToken", "id"),
    "input fields that are not there": "mutation { "
    + _each(6, f"a#: saveCustomerGatewayToken(input: {{ {_each(99, _LONG_NAME + '#: 1')} }}) {{ created }}")
    + " }",
    "an input field over and over": "mutation { "
    + _each(6, f"a#: saveCustomerGatewayToken(input: {{ {'id: 1 ' * 99} }}) {{ created }}")
    + " }",
}
# What variables there are, and where, is looked for in another walk through the document.
WITHIN_THE_TOKENS |= {
    f"{name}, and a variable": before + WITHIN_THE_TOKENS[name].removeprefix("mutation")
    for name, before in {
        "an argument over and over": "query ($v: Int) ",
        "arguments that are not there": "query ($v: Int) ",
        "objects": "query ($v: Int) ",
        "fragments that are not there": "query ($v: Int) ",
        "input fields that are not there": "mutation ($v: Int)",
        "an input field over and over": "mutation ($v: Int)",
    }.items()
}
