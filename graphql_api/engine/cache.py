"""A bounded cache of documents by source text. It does not know how they are prepared."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Sizes:
    """The sizes of some documents, least recently used first."""

    def __init__(self, max_documents: int, max_size: int) -> None:
        self.of = OrderedDict[str, int]()
        self._total = 0
        self._max_documents = max_documents
        self._max_size = max_size

    def add(self, source: str, size: int) -> None:
        self.of[source] = size
        self._total += size

    def remove(self, source: str) -> None:
        self._total -= self.of.pop(source)

    def oldest_beyond(self) -> str | None:
        """The document to evict first, if these exceed their bounds."""
        return next(iter(self.of)) if len(self.of) > self._max_documents or self._total > self._max_size else None


class DocumentCache(Generic[T]):
    """Keeps the most recently used documents, bounded by number and total size.

    A single owner can fill at most 1/`share` of either bound, so that one caller cannot evict everyone's documents.
    """

    def __init__(self, max_documents: int, max_size: int, share: int = 8) -> None:
        self._documents: dict[str, tuple[T, Hashable]] = {}
        self._sizes = _Sizes(max_documents, max_size)
        self._max_size = max_size
        self._max_owned = max(1, max_documents // share), max_size // share
        self._owned: dict[Hashable, _Sizes] = {}

    def get(self, source: str) -> T | None:
        """The document with this source, which becomes the most recently used."""
        found = self._documents.get(source)
        if found is None:
            return None
        document, _ = found
        self._sizes.of.move_to_end(source)
        return document

    def put(self, source: str, document: T, size: int, owner: Hashable = None) -> None:
        """Add a document. One that is too large to keep evicts nothing.

        Args:
            source: its text
            document: the value to keep
            size: how much of the total size it uses
            owner: the caller whose share it counts towards; None for no share
        """
        if size > (self._max_size if owner is None else self._max_owned[1]):
            return
        self._documents[source] = document, owner
        self._sizes.add(source, size)
        if owner is not None:
            owned = self._owned.setdefault(owner, _Sizes(*self._max_owned))
            owned.add(source, size)
            while oldest := owned.oldest_beyond():
                self._remove(oldest)
        while oldest := self._sizes.oldest_beyond():
            self._remove(oldest)

    def _remove(self, source: str) -> None:
        _, owner = self._documents.pop(source)
        self._sizes.remove(source)
        if owner is not None:
            self._owned[owner].remove(source)
            if not self._owned[owner].of:
                del self._owned[owner]
