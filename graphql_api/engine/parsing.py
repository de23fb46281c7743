"""Parses documents like graphql-core, at a cost that their author cannot drive up."""

import json
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


MAX_NAME_LENGTH = 128  # of every name in a document, and of the name of the operation to run

_NAME = re.compile("[_0-9A-Za-z]*")
_DIGITS = re.compile("[0-9]*")
_IGNORED = re.compile("[ \t,\ufeff\r\n]*")
_COMMENT = re.compile("[^\r\n\ud800-\udfff]*")
_HEX = "[0-9a-fA-F]"
# A string up to its end, or to what is wrong in it.
_STRING = re.compile(
    "(?:"
    + "|".join(
        (
            r'[^"\\\r\n\ud800-\udfff]++',
            r'\\["\\/bfnrt]',
            rf"\\u(?![dD][89a-fA-F]){_HEX}{{4}}",
            rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}",
            rf"\\u\{{(?={_HEX}{{1,8}}\}})0*+(?![dD][89a-fA-F]{_HEX}{{2}}\}})(?:{_HEX}{{0,5}}|10{_HEX}{{4}})\}}",
        )
    )
    + ")*+"
)
_CODE_POINT = re.compile(rf"\\u\{{({_HEX}{{1,8}})\}}")
_IN_JSON = {'"': r"\"", "\\": r"\\"}
_BLOCK = re.compile(r'(?:[^"\\\ud800-\udfff]++|\\"""|\\|"(?!""))*+')
_BLANK_LINES = re.compile(r"\A(?:[ \t]*+\n)*+")
_INDENTS = re.compile("\n([ \t]*+)(?=[^ \t\n])")


class _Lexer(Lexer):
    """A lexer that reads names, texts, and what is ignored, in one step each; graphql-core reads them by character.

    A compressed request of a few bytes may have a million characters. What is wrong is left to graphql-core to say.
    """

    def read_next_token(self, start: int) -> Token:
        """The token that starts here, or behind what is ignored."""
        body = self.source.body
        end = _end(_IGNORED, body, start)
        self._count_lines(start, end)
        return super().read_next_token(end)

    def read_name(self, start: int) -> Token:
        """The name that starts here."""
        body = self.source.body
        end = _end(_NAME, body, start)
        if end - start > MAX_NAME_LENGTH:
            raise GraphQLSyntaxError(self.source, start, f"A name has at most {MAX_NAME_LENGTH} characters.")
        return self.create_token(TokenKind.NAME, start, end, body[start:end])

    def read_digits(self, start: int, first_char: str) -> int:
        """Where the digits end that start here."""
        end = _end(_DIGITS, self.source.body, start)
        return end if end > start else super().read_digits(start, first_char)

    def read_comment(self, start: int) -> Token:
        """The comment that starts here."""
        body = self.source.body
        end = _end(_COMMENT, body, start + 1)
        return self.create_token(TokenKind.COMMENT, start, end, body[start + 1 : end])

    def read_string(self, start: int) -> Token:
        """The string that starts here."""
        body = self.source.body
        end = _end(_STRING, body, start + 1)
        if not body.startswith('"', end):
            return super().read_string(end - 1)
        text = body[start + 1 : end]
        if "\\" in text:
            if "\\u{" in text:
                text = _as_json(text)
            text = json.loads(f'"{text}"', strict=False)
        return self.create_token(TokenKind.STRING, start, end + 1, text)

    def read_block_string(self, start: int) -> Token:
        """The block string that starts here."""
        body = self.source.body
        end = _end(_BLOCK, body, start + 3)
        if not body.startswith('"""', end):
            return super().read_block_string(end - 3)
        token = self.create_token(TokenKind.BLOCK_STRING, start, end + 3, _block_value(body[start + 3 : end]))
        self._count_lines(start, end)
        return token

    def _count_lines(self, start: int, end: int) -> None:
        if lines := _lines(self.source.body, start, end):
            self.line += lines
            self.line_start = _line_start(self.source.body, start, end)


def _end(pattern: re.Pattern[str], body: str, start: int) -> int:
    """Where a match ends that starts here, of a pattern that matches even nothing."""
    return pattern.match(body, start).end()  # pyright: ignore[reportOptionalMemberAccess]


def _as_json(text: str) -> str:
    r"""A string's text with `\u{…}` as JSON has it: the character itself. Each different one is worked out once."""
    pieces = _CODE_POINT.split(text.replace(r"\\", r"\u005c"))  # now every backslash begins an escape
    points = pieces[1::2]
    characters = {point: chr(int(point, 16)) for point in set(points)}
    in_json = {point: _IN_JSON.get(character, character) for point, character in characters.items()}
    pieces[1::2] = [in_json[point] for point in points]
    return "".join(pieces)


def _block_value(text: str) -> str:
    """The value of a block string: without the common indentation of its lines, and blank ones at both ends."""
    text = text.replace('\\"""', '"""').replace("\r\n", "\n").replace("\r", "\n")
    filled = len(text.rstrip(" \t\n"))
    if not filled:
        return ""
    begin, end = _end(_BLANK_LINES, text, 0), text.find("\n", filled)
    text = text[begin : end if end >= 0 else None]
    indents = _INDENTS.findall(f"\n{text}" if begin else text)  # the first line of all has none
    common = min(map(len, indents), default=0)
    if not common:
        return text
    return "\n".join([line[common:] if number or begin else line for number, line in enumerate(text.split("\n"))])


def _lines(body: str, start: int, end: int) -> int:
    """How many lines end between two places."""
    return body.count("\n", start, end) + body.count("\r", start, end) - body.count("\r\n", start, end)


def _line_start(body: str, start: int, end: int) -> int:
    """Where the last line begins that does so between two places; 0 if none does."""
    return max(body.rfind("\n", start, end), body.rfind("\r", start, end)) + 1


class _Text(Source):
    """A source that finds locations fast: graphql-core goes through the lines one by one for each error."""

    def get_location(self, position: int) -> SourceLocation:
        """The line and column of a character, both counted from 1."""
        lines, start = _lines(self.body, 0, position), _line_start(self.body, 0, position)
        return SourceLocation(lines + 1, position - start + 1)
