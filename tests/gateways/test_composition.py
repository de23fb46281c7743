import json
import re

import pytest

from tests.gateways.graph import GRAPH, TESTS, compose


@pytest.mark.parametrize("library", ["apollo", "guild", "wundergraph"])
def test_the_subgraph_composes_with_its_neighbours_without_a_complaint(library, subgraphs):
    assert compose(library, subgraphs)["complaints"] == []


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
