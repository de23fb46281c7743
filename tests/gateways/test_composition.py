import pytest

from tests.gateways.graph import compose


@pytest.mark.parametrize("library", ["apollo", "guild", "wundergraph"])
def test_the_subgraph_composes_with_its_neighbours_without_a_complaint(library, subgraphs):
    assert compose(library, subgraphs)["complaints"] == []
