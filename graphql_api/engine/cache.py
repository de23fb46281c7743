"""A bounded cache that callers share, of documents and of programs. It does not know how they are prepared."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Sizes(Generic[K]):
    """The sizes of some values by their keys, least recently used first."""

    def __init__(self, max_values: int, max_size: int) -> None:
        self.of = OrderedDict[K, int]()
        self._total = 0
        self._max_values = max_values
        self._max_size = max_size

    def add(self, key: K, size: int) -> None:
        self.of[key] = size
        self._total += size

    def remove(self, key: K) -> None:
        self._total -= self.of.pop(key)

    def oldest_beyond(self) -> K | None:
        """The key of what to evict first, if these exceed their bounds."""
        return next(iter(self.of)) if len(self.of) > self._max_values or self._total > self._max_size else None


class SharedCache(Generic[K, T]):
    """Keeps the most recently used values, bounded by number and total size.

    A single owner can fill at most 1/`share` of either bound, so that one caller cannot evict what everyone uses.
    """

    def __init__(self, max_values: int, max_size: int, share: int = 8) -> None:
        self._values: dict[K, tuple[T, Hashable]] = {}
        self._sizes = _Sizes[K](max_values, max_size)
        self._max_size = max_size
        self._max_owned = max(1, max_values // share), max_size // share
        self._owned: dict[Hashable, _Sizes[K]] = {}

    def get(self, key: K) -> T | None:
        """The value of this key, which becomes the most recently used."""
        found = self._values.get(key)
        if found is None:
            return None
        value, _ = found
        self._sizes.of.move_to_end(key)
        return value

    def put(self, key: K, value: T, size: int, owner: Hashable = None) -> None:
        """Add a value. One that is too large to keep evicts nothing.

        Args:
            key: what finds it, such as the text of a document
            value: what to keep
            size: how much of the total size it uses
            owner: the caller whose share it counts towards; None for no share
        """
        if size > (self._max_size if owner is None else self._max_owned[1]):
            return
        self._values[key] = value, owner
        self._sizes.add(key, size)
        if owner is not None:
            owned = self._owned.setdefault(owner, _Sizes[K](*self._max_owned))
            owned.add(key, size)
            while (oldest := owned.oldest_beyond()) is not None:
                self._remove(oldest)
        while (oldest := self._sizes.oldest_beyond()) is not None:
            self._remove(oldest)

    def values(self) -> Iterable[T]:
        """All values, in no particular order."""
        return (value for value, _ in self._values.values())

    def _remove(self, key: K) -> None:
        _, owner = self._values.pop(key)
        self._sizes.remove(key)
        if owner is not None:
            self._owned[owner].remove(key)
            if not self._owned[owner].of:
                del self._owned[owner]
