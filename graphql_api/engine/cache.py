"""A bounded cache of documents, by their source text; it does not know what preparing one means."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Sizes:
    """What some documents take, in the order of their use."""

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
        """The document that goes first, if these are more than they may be."""
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
        """The document with this source, which counts as used now."""
        found = self._documents.get(source)
        if found is None:
            return None
        document, _ = found
        self._sizes.of.move_to_end(source)
        return document

    def put(self, source: str, document: T, size: int, owner: Hashable = None) -> None:
        """Keep a document that was not there; one too large to be kept at all pushes nothing out.

        Args:
            source: its text
            document: what is kept
            size: what it takes
            owner: whose share it counts towards; None if it counts towards no share
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
