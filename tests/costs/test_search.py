"""A search for expensive documents finds none, but does find faults that are planted."""

import gc
import os
import re
import time
import tracemalloc

import pytest
from graphql import FragmentDefinitionNode, FragmentSpreadNode, GraphQLError

from graphql_api.app import _engine
from graphql_api.engine import Engine
from graphql_api.engine.cache import DocumentCache
from graphql_api.settings import Settings
from tests.costs.conftest import MAX_CPU_SECONDS, SLOW_MACHINE
from tests.costs.search import Genome, climb
from tests.costs.shapes import each

TRIES = int(os.environ.get("COSTS_TRIES", "60"))
SEED = int(os.environ.get("COSTS_SEED", "1"))


def preparing(engine):
    """Measures what it takes to prepare a document: twice if that is long, since the garbage collector may come by."""

    def seconds(document):
        began = time.process_time()
        engine.prepare(document)
        return time.process_time() - began

    def measure(document):
        taken = seconds(document)
        return taken if taken < MAX_CPU_SECONDS else min(taken, seconds(f"{document} "))

    return measure


@pytest.mark.parametrize("introspection", [False, True])
def test_no_document_is_found_that_costs_more_than_its_length_allows(introspection):
    engine = _engine(Settings.model_construct(introspection=introspection, auth_secret="x"), None)
    found, document = climb(preparing(engine), TRIES, SEED, SLOW_MACHINE)
    print(f"{found:.2f} times the promise: {len(document):,} characters, {document[:200]}")  # noqa: T201 - for make test-costs
    assert found <= SLOW_MACHINE, document[:2000]


class EnoughError(Exception):
    """The planted fault has taken long enough to be found."""


def walks_every_spread(document):
    """What a check costs that opens a fragment anew wherever it is spread."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    began = time.process_time()

    def walk(node):
        if time.process_time() - began > 2:
            raise EnoughError
        for selection in node.selection_set.selections if getattr(node, "selection_set", None) else ():
            if isinstance(selection, FragmentSpreadNode):
                walk(fragments[selection.name.value])
            else:
                walk(selection)

    try:
        for definition in document.definitions:
            walk(definition)
    except (EnoughError, KeyError, RecursionError):
        pass
    return []


def test_the_search_finds_a_fragment_walk_that_is_exponential(schema):
    engine = Engine(schema, before_validation=[walks_every_spread], max_tokens=2000)
    found, _ = climb(preparing(engine), 2000, SEED, SLOW_MACHINE)
    assert found > SLOW_MACHINE


def looks_for_a_suggestion(document):
    """What a pattern costs that begins anew wherever its first words stand, and looks for its last up to the end."""
    re.search(r",? did you mean .*?!", document.loc.source.body)
    return [GraphQLError("That was all.")]


def test_the_search_finds_a_pattern_that_is_quadratic(schema):
    engine = Engine(schema, before_validation=[looks_for_a_suggestion], max_tokens=2000)
    found, document = climb(preparing(engine), 2000, SEED, SLOW_MACHINE)
    assert found > SLOW_MACHINE
    assert " did you mean" in document


@pytest.fixture
def retained():
    """Bytes that stay in memory after so many documents more, each another one."""
    tracemalloc.start()

    def bytes_after(engine, first, count):
        gc.collect()  # other tests leave garbage, too, and may have made collections rare
        before, _ = tracemalloc.get_traced_memory()
        for number in range(first, first + count):
            assert not isinstance(engine.prepare(f"{{ {each(20, f'a{number}_#: __typename ')} }}"), list)
            assert isinstance(engine.prepare(Genome(unit=f"{number:09}", repeats=100).document()), list)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        return after - before

    yield bytes_after
    tracemalloc.stop()


def test_what_was_prepared_stays_in_memory_up_to_a_bound(schema, retained):
    engine = Engine(schema, max_documents=50, max_characters=20_000)
    retained(engine, 0, 100)
    assert min(retained(engine, start, 100) for start in (100, 200, 300)) < 100_000  # other tests leave garbage, too


def test_a_cache_without_a_bound_would_be_found(schema, retained, monkeypatch):
    def put(self, source, document, _size, _owner=None):
        self._documents[source] = document, None

    monkeypatch.setattr(DocumentCache, "put", put)
    engine = Engine(schema, max_documents=50, max_characters=20_000)
    retained(engine, 0, 100)
    assert retained(engine, 100, 100) > 100_000
