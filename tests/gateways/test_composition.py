import json
import re

import pytest
from graphql import build_schema

from tests.docs.pages import blocks
from tests.gateways.graph import GRAPH, TESTS, compose

pytestmark = pytest.mark.slow
LIBRARIES = ["apollo", "guild", "wundergraph"]
LINK = 'extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@shareable"])'
OURS = {"name": "tokens", "url": "http://127.0.0.1:1", "sdl": (GRAPH.parent / "schema.graphql").read_text()}


def beside(library, *types):
    """What a library makes of our subgraph and of one with these types, for each of them."""
    shops = ({"name": "shop", "url": "http://127.0.0.1:2", "sdl": f"{LINK} {each}"} for each in types)
    return compose(library, *([OURS, shop] for shop in shops))


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_subgraph_composes_with_its_neighbours_without_a_complaint(library, subgraphs):
    [composed] = compose(library, subgraphs)
    assert composed["complaints"] == []


# Enums of ours whose names a graph may have already, as another subgraph could define them.
CLASHES = {
    "BatchErrorPolicy": "enum BatchErrorPolicy { ABORT CONTINUE RETRY } type Query { policy: BatchErrorPolicy }",
    "MergeConflictPolicy": "enum MergeConflictPolicy { OURS } type Query { a(b: MergeConflictPolicy): Int }",
    "EventStart": "enum EventStart { NOON } type Query { a(b: EventStart): Int }",
}
IN_PART = "enum BatchErrorPolicy { ABORT RETRY } type Query { a(b: BatchErrorPolicy): Int }"
PAGE_INFO = ["hasNextPage: Boolean!", "hasPreviousPage: Boolean!", "startCursor: String", "endCursor: String"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_enum_of_another_subgraph_with_other_values_stops_composition_or_takes_values_away(library):
    *clashing, in_part = beside(library, *CLASHES.values(), IN_PART)
    for name, composed in zip(CLASHES, clashing, strict=True):
        assert name in str(composed["complaints"])
    if library != "wundergraph":  # from which we get no supergraph
        values = build_schema(in_part["supergraph"], assume_valid=True).type_map["BatchErrorPolicy"].values
        assert values.keys() == {"ABORT"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_page_info_needs_all_fields(library):
    def page(*fields):
        return f"type PageInfo @shareable {{ {' '.join(fields)} }} type Query {{ page: PageInfo }}"

    smaller = [page(*(field for field in PAGE_INFO if field != missing)) for missing in PAGE_INFO]
    whole, *composed = beside(library, page(*PAGE_INFO), *smaller)
    assert whole["complaints"] == []
    for missing, each in zip(PAGE_INFO, composed, strict=True):
        assert missing.partition(":")[0] in str(each["complaints"])


EVENTS = next(block.text for block in blocks(GRAPH.parent / "docs/events.md") if "@edfs" in block.text)


def test_the_event_driven_graph_of_the_page_composes_with_the_subgraph():
    wrong = {
        EVENTS: None,
        EVENTS.replace("args.id", "args.token"): "token",
        EVENTS.replace(", resolvable: false", ""): "resolvable",
        EVENTS.replace("type CustomerGatewayToken", "type Token").replace(
            ": CustomerGatewayToken!", ": Token"
        ): "Token",
    }
    graphs = ([OURS, {"name": "events", "url": "", "sdl": sdl}] for sdl in wrong)
    for composed, says in zip(compose("wundergraph", *graphs), wrong.values(), strict=True):
        assert composed["complaints"] == [] if says is None else says in str(composed["complaints"])


def test_the_page_names_the_routers_that_are_tested():
    """The columns of its table, with the versions that package.json pins."""
    page = (GRAPH.parent / "docs/federation.md").read_text()
    columns = re.search(r"\| \| (Apollo Gateway.*) \|\n", page)[1].split(" | ")
    pinned = json.loads((TESTS / "package.json").read_text())
    of_graph = json.loads((GRAPH / "package.json").read_text())["dependencies"]
    versions = [
        pinned["dependencies"]["@apollo/gateway"],
        of_graph["@graphql-hive/gateway"],
        pinned["dependencies"]["@graphql-hive/router-runtime"],
        pinned["optionalDependencies"]["@grafbase/cli-x86_64-unknown-linux-musl"],
    ]
    assert pinned["dependencies"]["@graphql-hive/gateway"] == of_graph["@graphql-hive/gateway"]
    assert [column.split()[-1] for column in columns] == versions
