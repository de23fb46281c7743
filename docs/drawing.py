"""Draws which part of the package imports which into architecture.md: `make drawing` after a change of that."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
DRAWN = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
_PACKAGE = "graphql_api"


def drawing() -> str:
    """The block for the page: folders are drawn round, modules square.

    Raises:
        graphlib.CycleError: parts import each other.
    """
    graph = grimp.build_graph(_PACKAGE, exclude_type_checking_imports=True)
    parts = sorted(graph.find_children(_PACKAGE) - {f"{_PACKAGE}.__main__"})
    folders = {part for part in parts if graph.find_children(part)}
    for folder in folders:
        graph.squash_module(folder)
    imports = {part: graph.find_modules_directly_imported_by(part) & set(parts) - {part} for part in parts}
    lines = [f"{_name(part)}({_name(part)})" if part in folders else f"{_name(part)}[{_name(part)}]" for part in parts]
    lines += [f"{_name(part)} --> {_name(other)}" for part in parts for other in _not_implied(imports, part)]
    return "\n    ".join(["```mermaid\nflowchart TD", *lines]) + "\n```\n"


def _not_implied(imports: dict[str, set[str]], part: str) -> list[str]:
    """What a part imports and does not reach by way of anything else that it imports."""
    reached: dict[str, set[str]] = {}
    for each in TopologicalSorter(imports).static_order():
        reached[each] = imports[each].union(*(reached[other] for other in imports[each]))
    return sorted(imports[part].difference(*(reached[other] for other in imports[part])))


def _name(part: str) -> str:
    return part.removeprefix(f"{_PACKAGE}.")


if __name__ == "__main__":
    PAGE.write_text(DRAWN.sub(lambda _: drawing(), PAGE.read_text()))
