"""A document as its answer will be built: every field set of the answer, with all fields of it.

Fragments are opened wherever they are spread, so a bomb of a few lines is as large here as it would be when it runs.
Work and memory are bounded by the number of selections that are allowed.
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
    """The document has more selections than are allowed; how many more is not looked at."""


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The fields of one object of the answer: the specification's grouped field set.

    Its selection sets are one, or several if fields of one name are above. Depth is 1 at the root, and again
    below `__schema` and `__type`, where only the schema's own description is.
    """

    depth: int
    is_introspection: bool
    fields: dict[str, list[FieldNode]]  # by response name
    directives: int


@dataclass(frozen=True, slots=True)
class ExpandedDocument:
    """A document, with every field set of every operation, and of fragments that no operation uses."""

    document: DocumentNode
    field_sets: list[FieldSet]


def expand(document: DocumentNode, max_selections: int) -> ExpandedDocument:
    """Open the fragments of a document wherever they are spread.

    Raises:
        TooManySelectionsError: there are more then.
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
        """The selections of one field set, fragments opened; each counts, and a fragment opens once in a field set."""
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
