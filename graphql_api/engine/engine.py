"""Documents in, operations out: parsed, limited, validated and compiled once, then kept."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from typing import Literal

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoUndefinedVariablesRule,
    NoUnusedVariablesRule,
    OperationDefinitionNode,
    VariablesInAllowedPositionRule,
    specified_rules,
    validate,
)

from graphql_api.engine.cache import SharedCache
from graphql_api.engine.executor import VALIDATION_RULES
from graphql_api.engine.messages import with_enum_values, without_suggestions
from graphql_api.engine.operation import Operation, Phase, RequestCheck
from graphql_api.engine.parsing import MAX_NAME_LENGTH, count_tokens, parse
from graphql_api.engine.types import strawberry_schema
from graphql_api.engine.validation import combine_rules

Mode = Literal["compiled", "graphql-core"]
DocumentCheck = Callable[[DocumentNode], list[GraphQLError]]
RequestChecks = Callable[[GraphQLSchema, DocumentNode, OperationDefinitionNode], RequestCheck]

# These rules traverse the whole document once more, for the variables that it uses.
_OF_VARIABLES = {NoUndefinedVariablesRule, NoUnusedVariablesRule, VariablesInAllowedPositionRule}
_CHARACTERS_PER_TOKEN = (
    8  # otherwise the garbage collector would spend its time on a few long documents of short tokens
)

_LARGE_SHARE = 8

MAX_ERRORS = 20
MAX_QUOTED = 20_000
"""How many validation errors are reported: each costs time, and an attacker's document has thousands.

An error may quote a large part of its document. For a long document fewer errors are reported, so that together they
quote at most `MAX_QUOTED` characters, or one error quotes all of it.
"""


class NoOperationError(GraphQLError):
    """The document is valid, but the request does not say which of its operations to run."""


class Engine:
    """Prepares and runs the operations of one schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        mode: Mode = "compiled",
        rules: Sequence[type[ASTValidationRule]] = (),
        before_validation: Sequence[DocumentCheck] = (),
        before_execution: Sequence[RequestChecks] = (),
        max_tokens: int | None = None,
        max_batch_tokens: int | None = None,
        max_documents: int = 1000,
        max_characters: int = 100_000,
        suggestions: bool = True,
        phase: Phase = nullcontext,
    ) -> None:
        """An engine for this schema.

        Args:
            schema: one that Strawberry made
            mode: what runs operations
            rules: validation rules besides those of the specification
            before_validation: checks of a parsed document that run first
            before_execution: makes the check that runs before each execution of an operation
            max_tokens: of a document
            max_batch_tokens: of the documents of a batch together
            max_documents: that are kept; of large ones, and of those that cannot run, a tenth of that
            max_characters: of all the documents that are kept, of all large ones, and of all that cannot run; a token
                counts as eight, which it mostly has; a large document has an eighth of that
            suggestions: whether errors say which names may have been meant
            phase: is entered with `parse`, `validate` and `compile` while that is done, which is once for a document
        """
        strawberry_schema(schema)
        self.fallbacks: Counter[str] = Counter()
        self.schema = schema
        self._compiled = mode == "compiled"
        all_rules = [*specified_rules, *VALIDATION_RULES, *rules]
        self._rules = combine_rules(all_rules)
        self._rules_without_variables = combine_rules([rule for rule in all_rules if rule not in _OF_VARIABLES])
        self._before_validation = before_validation
        self._before_execution = before_execution
        self._max_tokens = max_tokens
        self.max_batch_tokens = max_batch_tokens
        self._suggestions = suggestions
        self._phase = phase
        self._documents: SharedCache[str, _Document] = SharedCache(max_documents, max_characters)
        self._large: SharedCache[str, _Document] = SharedCache(max(1, max_documents // 10), max_characters, share=2)
        self._wrong: SharedCache[str, list[GraphQLError]] = SharedCache(max(1, max_documents // 10), max_characters)
        self._max_shared = max_characters // _LARGE_SHARE

    def prepare(
        self, query: str, operation_name: str | None = None, owner: Hashable = None
    ) -> Operation | list[GraphQLError]:
        """The operation to run, or the errors of the request. A document is prepared once, then cached.

        Args:
            query: the document
            operation_name: the operation to run, if the document has several
            owner: the caller whose share of the cache it counts towards; None for a trusted caller, who may use all
                of the cache
        """
        document = self._documents.get(query) or self._large.get(query) or self._wrong.get(query)
        if document is None:
            document, size = self._document(query)
            if isinstance(document, list):
                self._wrong.put(query, document, size)
            else:
                cache = self._large if size > self._max_shared else self._documents
                cache.put(query, document, size, owner)
        if isinstance(document, list):
            return document
        only = document.only
        return only if operation_name is None and only is not None else document.operation(operation_name)

    def errors_of(self, query: str) -> list[GraphQLError]:
        """Why no operation of a document can run; nothing if one can."""
        prepared = self.prepare(query)
        return prepared if isinstance(prepared, list) and not isinstance(prepared[0], NoOperationError) else []

    def tokens_of(self, query: str, most: int) -> int:
        """How many tokens a document has, up to its first mistake; of one that is new, none beyond `most` + 1."""
        known = self._documents.get(query) or self._large.get(query)
        return known.tokens if known is not None else count_tokens(query, most)

    def _document(self, query: str) -> "tuple[_Document | list[GraphQLError], int]":
        """A prepared document, and how much of the cache it uses."""
        try:
            with self._phase("parse"):
                document = parse(query, self._max_tokens)
        except GraphQLError as error:
            return self._detached([error.with_traceback(None)]), len(query)
        with self._phase("validate"):
            errors = self._validation_errors(query, document)
        if errors:
            return self._detached(errors), len(query)
        tokens = document.token_count
        return _Document(self._operations(document), tokens), max(len(query), _CHARACTERS_PER_TOKEN * tokens)

    def _validation_errors(self, query: str, document: DocumentNode) -> list[GraphQLError]:
        for check in self._before_validation:
            if errors := check(document):
                return errors
        rules = self._rules if "$" in query else self._rules_without_variables
        max_errors = max(1, min(MAX_ERRORS, MAX_QUOTED // len(query)))
        return validate(self.schema, document, [rules], max_errors=max_errors, hide_suggestions=not self._suggestions)

    def _detached(self, errors: list[GraphQLError]) -> list[GraphQLError]:
        """The errors in the form that is cached: without their document, and with suggestions if these are on."""
        for error in errors:
            error.nodes = error.source = None
            if self._suggestions:
                error.message = with_enum_values(error.message, self.schema)
            else:
                error.message = without_suggestions(error.message)
        return errors

    def _operations(self, document: DocumentNode) -> list[Operation]:
        return [
            Operation(
                self.schema,
                document,
                node,
                self.fallbacks,
                checks=[checks(self.schema, document, node) for checks in self._before_execution],
                compiled=self._compiled,
                suggestions=self._suggestions,
                phase=self._phase,
            )
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode)
        ]


class _Document:
    """A valid document and its operations. Validation ensures that there is one, and that names are unique."""

    def __init__(self, operations: list[Operation], tokens: int) -> None:
        self.tokens = tokens
        self._operations = operations
        self._by_name = {operation.name: operation for operation in operations}
        self.only = operations[0] if len(operations) == 1 else None

    def operation(self, name: str | None) -> Operation | list[GraphQLError]:
        if name is not None:
            shown = name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}…"
            return self._by_name.get(name) or [NoOperationError(f"Unknown operation named '{shown}'.")]
        if len(self._operations) > 1:
            return [NoOperationError("Must provide operation name if query contains multiple operations.")]
        return self._operations[0]
