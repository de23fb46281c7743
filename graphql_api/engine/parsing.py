"""Parses documents like graphql-core, at a cost that their author cannot drive up."""

import re

from graphql import DocumentNode, GraphQLSyntaxError, Lexer, Source, SourceLocation, Token, TokenKind
from graphql.language.parser import Parser, nested_too_deeply_error


def parse(query: str, max_tokens: int | None) -> DocumentNode:
    """Parse a document.

    graphql-core's tokens link to their neighbours: thousands of reference cycles per document, which the garbage
    collector would traverse while the document is cached. Nothing here reads the links, so they are removed.

    Raises:
        GraphQLSyntaxError: the text is not a document.
    """
    lexer = _Lexer(_Text(query))
    parser = Parser(lexer.source, max_tokens=max_tokens, lexer=lexer)
    try:
        return parser.parse_document()
    except RecursionError:
        pass  # it would keep the frames of all levels alive
    finally:
        token: Token | None = lexer.token
        while token.next is not None:
            token = token.next
        while token is not None:
            before, token.prev, token.next = token.prev, None, None
            token = before
    raise nested_too_deeply_error(parser)


def count_tokens(query: str, most: int) -> int:
    """The tokens of a text, comments included, up to its first mistake; no more than one beyond `most` is read."""
    lexer = _Lexer(_Text(query))
    count = end = 0
    try:
        while count <= most and (token := lexer.read_next_token(end)).kind is not TokenKind.EOF:
            count, end = count + 1, token.end
    except GraphQLSyntaxError:
        pass
    return count


_NAME = re.compile("[_0-9A-Za-z]*")
MAX_NAME_LENGTH = 128  # of every name in a document, and of the name of the operation to run


class _Lexer(Lexer):
    """A lexer that reads a name in one step; graphql-core reads it character by character."""

    def read_name(self, start: int) -> Token:
        """The name that starts here."""
        body = self.source.body
        end = _NAME.match(body, start).end()  # pyright: ignore[reportOptionalMemberAccess] - it may be empty
        if end - start > MAX_NAME_LENGTH:
            raise GraphQLSyntaxError(self.source, start, f"A name has at most {MAX_NAME_LENGTH} characters.")
        return self.create_token(TokenKind.NAME, start, end, body[start:end])


class _Text(Source):
    """A source that finds locations fast: graphql-core goes through the lines one by one for each error."""

    def get_location(self, position: int) -> SourceLocation:
        """The line and column of a character, both counted from 1."""
        before = self.body[:position]
        lines = before.count("\n") + before.count("\r") - before.count("\r\n")
        start = max(before.rfind("\n"), before.rfind("\r")) + 1
        return SourceLocation(lines + 1, position - start + 1)
