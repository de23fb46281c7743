"""What tests of random operations need."""

import gc
from itertools import count

import pytest


@pytest.fixture
def collect():
    """Collects garbage where we say so: what is not awaited any more is reported there, under our filter."""
    runs = count()

    def collect():
        if next(runs) % 50 == 0:
            gc.collect()
            gc.freeze()

    gc.disable()
    yield collect
    gc.unfreeze()
    gc.collect()
    gc.enable()
