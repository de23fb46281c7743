"""The only place that knows the wording of graphql-core's messages, which a release of it may change."""

import re

from graphql import GraphQLEnumType, GraphQLError, GraphQLSchema, GraphQLSyntaxError

_NUMBER_FOR_STRING = re.compile(r"String cannot represent a non string value: [-+.0-9eE]+\Z")
_WRONG_ENUM_VALUE = re.compile(r"does not exist in '(\w+)' enum|Enum '(\w+)' cannot represent")
_SUGGESTION = re.compile(r",? did you mean [^?]*\?", re.IGNORECASE)


def is_token_limit(error: GraphQLError) -> bool:
    """Whether the parser refused a document for its number of tokens, the only limit that it has."""
    return isinstance(error, GraphQLSyntaxError) and error.message.endswith(" tokens. Parsing aborted.")


def with_token_limit(message: str) -> str:
    """The message of `is_token_limit`, with the setting."""
    return message.replace(" tokens. Parsing aborted.", " tokens (MAX_TOKENS).")


def is_argument_error(error: GraphQLError) -> bool:
    """Whether a field was called with an argument that cannot be coerced."""
    return bool(error.nodes) and error.message.startswith("Argument ")


def without_suggestions(message: str) -> str:
    """The message without what it says about names that may have been meant, in time linear in its length."""
    head, mark, tail = message.rpartition("?")  # up to a question mark, each beginning of a suggestion has its end
    return _SUGGESTION.sub("", head + mark) + tail


def with_enum_values(message: str, schema: GraphQLSchema) -> str:
    """The message, with the values that there are if one of an enum is wrong."""
    wrong = _WRONG_ENUM_VALUE.search(message)
    enum = wrong and schema.type_map.get(wrong[1] or wrong[2])
    return f"{message} Values are: {', '.join(enum.values)}." if isinstance(enum, GraphQLEnumType) else message


def without_exception(message: str) -> str:
    """The message without the text of an exception that a scalar's parser raised."""
    head, begins, _ = message.partition(", but encountered error '")
    _, ends, tail = message[len(head) :].rpartition("'; found")
    return f"{head}, found{tail}" if begins and ends else message


def with_advice(message: str) -> str:
    """The message, with what to do about a number that was sent instead of a string, such as a numeric id."""
    return f"{message}. Send it as a string, in quotes." if _NUMBER_FOR_STRING.search(message) else message
