"""A bounded cache of documents, by their source text; it does not know what preparing one means."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class DocumentCache(Generic[T]):
    """Keeps the most recently used documents, bounded by number and total size."""

    def __init__(self, max_documents: int, max_size: int) -> None:
        self._max_documents = max_documents
        self._max_size = max_size
        self._size = 0
        self._documents: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, source: str) -> T | None:
        """The document with this source, which counts as used now."""
        found = self._documents.get(source)
        if found is None:
            return None
        self._documents.move_to_end(source)
        return found[0]

    def put(self, source: str, document: T, size: int) -> None:
        """Keep a document that was not there; one too large to be kept at all pushes nothing out."""
        if size > self._max_size:
            return
        self._documents[source] = (document, size)
        self._size += size
        while len(self._documents) > self._max_documents or self._size > self._max_size:
            _, (_, oldest) = self._documents.popitem(last=False)
            self._size -= oldest
