"""Memory in which each worker of a supervisor shares a message with the others, such as its metrics.

It is anonymous, so no file in `/dev/shm` can fill up or stay behind. A slot outlives its worker, and the replacement
continues from the last message.
"""

import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import BinaryIO

MAX_MESSAGE_BYTES = 1024 * 1024
_HEAD = struct.Struct("@Q")  # how many messages there were, and the length of the last: written and read as one word
_SLOT = mmap.PAGESIZE + 2 * MAX_MESSAGE_BYTES


class SharedMemory:
    """One slot per worker. It belongs to the process that holds its lock, which the kernel releases when it ends."""

    def __init__(self, file: BinaryIO, slots: int) -> None:
        self._file = file
        self._slots = slots
        self._memory = mmap.mmap(file.fileno(), slots * _SLOT)

    @classmethod
    @contextmanager
    def open(cls, slots: int) -> "Generator[SharedMemory]":
        """Memory for this many workers. Open it before they are forked."""
        if sys.platform == "linux":
            file = os.fdopen(os.memfd_create("gateway-tokens-metrics"), "r+b")
        else:
            file = TemporaryFile()  # noqa: SIM115 - closed below
        with file:
            file.truncate(slots * _SLOT)
            yield cls(file, slots)

    def take_slot(self) -> int | None:
        """A slot for this process until it ends; None if all are taken."""
        return next((slot for slot in range(self._slots) if self._lock(slot)), None)

    def is_alive(self, slot: int) -> bool:
        """Whether another process holds the slot."""
        if not self._lock(slot):
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)
        return False

    def write(self, slot: int, message: bytes) -> bool:
        """Replace the slot's message; False if it does not fit. A reader sees the old one or the new one."""
        if len(message) > MAX_MESSAGE_BYTES:
            return False
        count = self._head(slot)[0] + 1
        start = self._start(slot, count)
        self._memory[start : start + len(message)] = message
        _HEAD.pack_into(self._memory, slot * _SLOT, count << 32 | len(message))
        return True

    def read(self, slot: int) -> bytes:
        """The slot's message; empty if none was written."""
        while True:
            head = count, length = self._head(slot)
            start = self._start(slot, count)
            message = self._memory[start : start + length]
            if self._head(slot) == head:
                return message

    def others(self, own: int | None) -> Generator[tuple[int, bytes]]:
        """The messages of all other slots."""
        for slot in range(self._slots):
            if slot != own and (message := self.read(slot)):
                yield slot, message

    def _lock(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _head(self, slot: int) -> tuple[int, int]:
        (word,) = _HEAD.unpack_from(self._memory, slot * _SLOT)
        return word >> 32, word & 0xFFFFFFFF

    @staticmethod
    def _start(slot: int, count: int) -> int:
        """Messages alternate between the two halves of a slot, so that the last one stays while the next is written."""
        return slot * _SLOT + mmap.PAGESIZE + count % 2 * MAX_MESSAGE_BYTES
