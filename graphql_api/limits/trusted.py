"""Trusted documents: if there is a list, only these run. A request names one by id or by text."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from graphql import GraphQLError, parse

_HASH = re.compile("[0-9A-Fa-f]{64}")

NOT_TRUSTED = "DOCUMENT_NOT_TRUSTED"

_FORMS = (
    "the file must be a .graphql document, or JSON: a list of documents, an object of documents by id, or Apollo's"
    " manifest"
)


class TrustedDocuments:
    """Documents by id. The SHA-256 of a document's text, with and without surrounding white space, is an id."""

    def __init__(self, documents: Iterable[tuple[str, str]]) -> None:
        """Add these pairs of id and text.

        Raises:
            ValueError: there are no documents, one cannot be parsed, or two have the same id.
        """
        self._by_id: dict[str, str] = {}
        self._by_text: dict[str, str] = {}
        for document_id, text in documents:
            _must_parse(document_id, text)
            document = self._by_text.setdefault(text.strip(), text)
            for name in (document_id, _sha256(text), _sha256(text.strip())):
                if self._by_id.setdefault(_normalized(name), document) != document:
                    raise ValueError(f"two documents have the id {name}")
        if not self._by_id:
            raise ValueError("contains no document")

    def invalid(self, errors_of: Callable[[str], Sequence[GraphQLError]]) -> Iterator[str]:
        """The first error of each document that has any, with its id and the line, as `errors_of` a text says."""
        ids: dict[str, str] = {}
        for document_id, text in self._by_id.items():
            ids.setdefault(text, document_id)
        for text, document_id in ids.items():
            for error in errors_of(text)[:1]:
                place = f", line {error.locations[0].line}," if error.locations else ""
                yield f"the document {document_id!r}{place} cannot run: {error.message}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """The documents of a file: a `.graphql` document, or JSON: a list, an object by id, or Apollo's manifest.

        Raises:
            ValueError: it has another form, or contains a document that cannot be parsed.
        """
        try:
            text = path.read_text("utf-8")
            found = [text] if path.suffix == ".graphql" else json.loads(text)
        except json.JSONDecodeError as error:
            wrong = f"this is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
            raise ValueError(f"{_FORMS}; {wrong}") from None
        except (ValueError, RecursionError):
            raise ValueError(_FORMS) from None
        return cls(_pairs(found))

    def find(self, query: str | None, document_id: str | None) -> str:
        """The document with this text or this id; if both are given, they must match.

        Raises:
            GraphQLError: there is no such document.
        """
        document = self._by_text.get(query.strip()) if query is not None else None
        if document_id is not None:
            name = _normalized(document_id.removeprefix("sha256:"))
            named = self._by_id.get(name)
            if query is None:
                document = named
            elif document != named and name != _sha256(query):
                document = None
        if document is None:
            raise GraphQLError(
                "This document is not in the list of trusted documents.", extensions={"code": NOT_TRUSTED}
            )
        return document


def _pairs(found: Any) -> Iterator[tuple[str, str]]:
    match found:
        case {"format": "apollo-persisted-query-manifest", "operations": [*operations]}:
            for operation in operations:
                yield _member(operation, "id"), _member(operation, "body")
        case {**by_id}:
            for document_id, text in by_id.items():
                yield document_id, _text(text)
        case [*texts]:
            for text in texts:
                yield _sha256(_text(text)), text
        case _:
            raise ValueError(_FORMS)


def _member(found: Any, name: str) -> str:
    return _text(found.get(name) if isinstance(found, dict) else None)


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(_FORMS)  # noqa: TRY004 - text of a wrong form, not a wrong type
    return found


def _must_parse(document_id: str, text: str) -> None:
    try:
        parse(text)
    except GraphQLError as error:
        line = error.locations[0].line if error.locations else 1
        raise ValueError(f"the document {document_id!r}, line {line}, cannot be parsed: {error.message}") from None


def _normalized(document_id: str) -> str:
    """Hashes in lower case; other ids are what they are."""
    return document_id.lower() if _HASH.fullmatch(document_id) else document_id


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
