"""Combines validation rules into one.

graphql-core calls each of its thirty rules at every node, although most rules concern only one or two kinds of nodes.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from graphql import BREAK, ASTValidationRule, Node, ValidationContext, Visitor
from graphql.language.visitor import EnterLeaveVisitor

Ask = Callable[[Node, Any, Any, Any, Any], Any]


def combine_rules(rules: Sequence[type[ASTValidationRule]]) -> type[ASTValidationRule]:
    """A rule that reports the same errors as all of these, in the same order."""
    return type("CombinedRules", (_CombinedRules,), {"_rules": tuple(rules), "_concerned": {}})


class _CombinedRules(ASTValidationRule):
    _rules: ClassVar[tuple[type[ASTValidationRule], ...]]
    _concerned: ClassVar[dict[str, list[int]]]
    """By the kind of a node, the indexes of the rules that do something there, which is the same for every document."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._visitors: list[Visitor] = [rule(context) for rule in self._rules]
        self._resting: set[Visitor] = set()
        self._until: dict[int, list[Visitor]] = {}  # visitors that skip the nodes below one, by its identity

    def get_enter_leave_for_kind(self, kind: str) -> EnterLeaveVisitor:
        """The visitor methods of all rules for this kind of node."""
        found = self.enter_leave_map.get(kind)
        if found is None:
            visitors = self._visitors
            indexes = self._concerned.get(kind, range(len(visitors)))
            asks = [(visitors[index], visitors[index].get_enter_leave_for_kind(kind)) for index in indexes]
            if kind not in self._concerned:
                self._concerned[kind] = [index for index, (_, ask) in enumerate(asks) if ask.enter or ask.leave]
            enters = [(visitor, ask.enter) for visitor, ask in asks if ask.enter]
            leaves = [(visitor, ask.leave) for visitor, ask in asks if ask.leave]
            found = EnterLeaveVisitor(
                self._entering(enters) if enters else None, self._leaving(leaves) if enters or leaves else None
            )
            self.enter_leave_map[kind] = found
        return found

    def _entering(self, asks: list[tuple[Visitor, Ask]]) -> Ask:
        resting, until = self._resting, self._until

        def enter(node: Node, key: Any, parent: Any, path: Any, ancestors: Any) -> None:
            for visitor, ask in asks:
                if visitor not in resting and (answer := ask(node, key, parent, path, ancestors)) is not None:
                    resting.add(visitor)
                    if not _ends(answer):
                        until.setdefault(id(node), []).append(visitor)

        return enter

    def _leaving(self, asks: list[tuple[Visitor, Ask]]) -> Ask:
        resting, until = self._resting, self._until

        def leave(node: Node, key: Any, parent: Any, path: Any, ancestors: Any) -> None:
            for visitor, ask in asks:
                if visitor not in resting and _ends(ask(node, key, parent, path, ancestors)):
                    resting.add(visitor)
            if until:
                resting.difference_update(until.pop(id(node), ()))

        return leave


def _ends(answer: object) -> bool:
    return answer is BREAK or answer is True
