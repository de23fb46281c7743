"""Expands a document into the field sets of its answer.

Fragments are opened wherever they are spread, so a fragment bomb is as large here as in execution. The maximum number
of selections bounds work and memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
)

_INTROSPECTION = frozenset({"__schema", "__type"})


class TooManySelectionsError(Exception):
    """The document has more selections than are allowed; the rest is not counted."""


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The fields of one object of the answer: the specification's grouped field set.

    It has several selection sets if fields above share a name. Depth is 1 at the root, and starts again at 1 below
    `__schema` and `__type`, which lead only into the schema's description.
    """

    depth: int
    is_introspection: bool
    fields: dict[str, list[FieldNode]]  # by response name
    directives: int


@dataclass(frozen=True, slots=True)
class ExpandedDocument:
    """A document with the field sets of its operations, and of fragments that no operation uses."""

    document: DocumentNode
    field_sets: list[FieldSet]


def expand(document: DocumentNode, max_selections: int) -> ExpandedDocument:
    """Open the fragments of a document wherever they are spread.

    Raises:
        TooManySelectionsError: the result has too many selections.
    """
    return ExpandedDocument(document, list(_Expansion(document, max_selections).field_sets()))


class _Expansion:
    def __init__(self, document: DocumentNode, max_selections: int) -> None:
        self._definitions = document.definitions
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._used: set[str] = set()
        self._remaining = max_selections

    def field_sets(self) -> Iterator[FieldSet]:
        for definition in self._definitions:
            if isinstance(definition, OperationDefinitionNode):
                yield from self._below(definition.selection_set)
        for name, fragment in self._fragments.items():
            if name not in self._used:
                yield from self._below(fragment.selection_set)

    def _below(self, root: SelectionSetNode) -> Iterator[FieldSet]:
        ahead: list[tuple[list[SelectionSetNode], int, bool]] = [([root], 1, False)]
        while ahead:
            field_set = self._field_set(*ahead.pop())
            yield field_set
            for fields in field_set.fields.values():
                inner = [field.selection_set for field in fields if field.selection_set]
                if inner:
                    enters = not field_set.is_introspection and all(
                        field.name.value in _INTROSPECTION for field in fields
                    )
                    depth = 1 if enters else field_set.depth + 1
                    ahead.append((inner, depth, field_set.is_introspection or enters))

    def _field_set(self, selection_sets: list[SelectionSetNode], depth: int, is_introspection: bool) -> FieldSet:  # noqa: FBT001
        fields: dict[str, list[FieldNode]] = {}
        directives = 0
        for selection in self._opened(selection_sets):
            directives += len(selection.directives or ())
            if isinstance(selection, FieldNode):
                fields.setdefault((selection.alias or selection.name).value, []).append(selection)
        return FieldSet(depth, is_introspection, fields, directives)

    def _opened(self, selection_sets: list[SelectionSetNode]) -> Iterator[SelectionNode]:
        """The selections of one field set with open fragments. Each counts, and a fragment opens once per field set."""
        ahead = [*selection_sets]
        opened: set[str] = set()
        while ahead:
            selections: Sequence[SelectionNode] = ahead.pop().selections
            self._remaining -= len(selections)
            if self._remaining < 0:
                raise TooManySelectionsError
            for selection in selections:
                yield selection
                if isinstance(selection, InlineFragmentNode):
                    ahead.append(selection.selection_set)
                elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in opened:
                    opened.add(selection.name.value)
                    if fragment := self._fragments.get(selection.name.value):
                        ahead.append(fragment.selection_set)
        self._used |= opened
