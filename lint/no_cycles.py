"""A contract for import-linter: no module imports another in a circle, not even for a type checker alone."""

from collections.abc import Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class NoCyclesContract(Contract):
    """Shows the shortest chain of each circle. Imports under `TYPE_CHECKING` count as well."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002, FBT001 - import-linter calls it so
        """Look for circles in the whole graph."""
        found = list(_cycles(graph))
        return ContractCheck(kept=not found, metadata={"cycles": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the chains."""
        for chain in check.metadata["cycles"]:
            output.print_error(f"\n{chain[0]}\n  imports " + "\n  imports ".join(chain[1:]))


def _cycles(graph: ImportGraph) -> Iterator[tuple[str, ...]]:
    """The shortest way from a module back to it, for each circle once."""
    seen: set[str] = set()
    for module in sorted(graph.modules):
        back = (
            graph.find_shortest_chain(imported, module) for imported in graph.find_modules_directly_imported_by(module)
        )
        chains = [chain for chain in back if chain]
        if chains and module not in seen:
            shortest = module, *min(chains, key=len)
            seen.update(shortest)
            yield shortest
