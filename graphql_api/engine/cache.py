"""A bounded cache of documents, by their source text; it does not know what preparing one means."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class DocumentCache(Generic[T]):
    """Keeps the most recently used documents, at most so many and at most so many characters of source."""

    def __init__(self, max_documents: int, max_characters: int) -> None:
        self._max_documents = max_documents
        self._max_characters = max_characters
        self._characters = 0
        self._documents: OrderedDict[str, T] = OrderedDict()

    def get(self, source: str) -> T | None:
        """The document with this source, which counts as used now."""
        document = self._documents.get(source)
        if document is not None:
            self._documents.move_to_end(source)
        return document

    def put(self, source: str, document: T) -> None:
        """Keep a document that was not there; one too large to be kept at all pushes nothing out."""
        if len(source) > self._max_characters:
            return
        self._documents[source] = document
        self._characters += len(source)
        while len(self._documents) > self._max_documents or self._characters > self._max_characters:
            oldest, _ = self._documents.popitem(last=False)
            self._characters -= len(oldest)
