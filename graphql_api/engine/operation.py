"""One operation of a valid document, ready to run any number of times."""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

from graphql import (
    DirectiveNode,
    DocumentNode,
    ExecutionResult,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    MiddlewareManager,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.collect_fields import FragmentDetails
from graphql.execution.values import VariableValues

from graphql_api.engine.cache import SharedCache
from graphql_api.engine.executor import CoreExecutor, is_awaitable
from graphql_api.engine.generate import Program, generate
from graphql_api.engine.plan import UnsupportedOperationError, plan_operation
from graphql_api.engine.runtime import Result, Run, bounded
from graphql_api.engine.size import Room
from graphql_api.engine.values import Variables

RequestCheck = Callable[[Mapping[str, Any]], list[GraphQLError]]
"""Says why an operation may not run with these variables, as they were sent."""

Phase = Callable[[str], AbstractContextManager[object]]
"""What is entered while something expensive is done, by its name: for those who measure."""

MAX_VARIANTS = 8
"""Programs that are kept of one operation, for different values of @skip and @include: the most recently used."""

_SHARE = 2  # one caller has at most half of them


class Operation:
    """An operation of a valid document."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        node: OperationDefinitionNode,
        fallbacks: Counter[str],
        *,
        checks: Sequence[RequestCheck],
        compiled: bool,
        suggestions: bool,
        phase: Phase,
    ) -> None:
        self.schema = schema
        self.document = document
        self.kind: OperationType = node.operation
        self.kind_name: str = node.operation.value
        self.name: str | None = node.name.value if node.name else None
        self._node = node
        self._fallbacks = fallbacks
        self._checks = checks
        self._compiled = compiled
        self._suggestions = suggestions
        self._phase = phase
        self._variables = Variables(schema, node, suggestions=suggestions)
        self._conditions = _conditions(document)
        self._program: Program | str | None = None
        """The program of an operation without conditions, or the reason why there is none."""
        self._variants = SharedCache[tuple[Any, ...], Program | str](MAX_VARIANTS, MAX_VARIANTS, _SHARE)
        """The same of one with conditions, by their values."""

    @property
    def source(self) -> str:
        """The Python that runs this operation, as far as it is compiled: at its first execution, that is."""
        programs = [self._program, *self._variants.values()]
        return "\n".join(program.source for program in programs if isinstance(program, Program))

    def execute(
        self,
        variables: dict[str, Any] | None,
        context: Any,
        root: Any = None,
        *,
        middleware: MiddlewareManager | None = None,
        compiles: bool = True,
        owner: Hashable = None,
        room: Room | None = None,
    ) -> Result | Coroutine[Any, Any, Result]:
        """Run the operation: at once if nothing has to be awaited. With middleware, graphql-core does.

        If `compiles` is false, an operation that is not compiled yet stays so, and graphql-core runs it: compiling
        costs most of what a new document costs, and is lost on a caller who will be refused. A program counts towards
        the share of its `owner`, as a document does. `room` bounds the answer.
        """
        if room is None:
            room = Room()
        for check in self._checks:
            if refusals := check(variables or {}):
                return Result(None, refusals, executed=False)
        if self._compiled and middleware is None:
            coerced = self._variables.coerce(variables or {})
            if isinstance(coerced, list):
                return Result(None, coerced, executed=False)
            program = self._program
            if program is None and compiles:
                program = self._program_for(coerced, owner)
            if isinstance(program, Program):
                run = Run(self, variables, coerced, context, root, room)
                return program.answer(run) if program.answer is not None else run.start(program.steps)
            if program is not None:
                self._fallbacks[program] += 1
        executor = self.core_executor(variables, context, root, middleware)
        if isinstance(executor, list):
            return Result(None, self._variables.told(executor), executed=False)
        executor.room = room
        # The engine takes no schema with @defer or @stream, so there is one result, never a series of them.
        result = cast("ExecutionResult | Awaitable[ExecutionResult]", executor.execute_operation())
        return _result(result, executor) if isinstance(result, ExecutionResult) else _awaited(result, executor)

    def core_executor(
        self, variables: dict[str, Any] | None, context: Any, root: Any, middleware: MiddlewareManager | None = None
    ) -> CoreExecutor | list[GraphQLError]:
        """graphql-core's executor of this operation, as Strawberry sets it up, or the errors in its variables."""
        return cast("Any", CoreExecutor).build(
            self.schema,
            self.document,
            root,
            context,
            variables,
            self.name,
            middleware=middleware,
            is_awaitable=is_awaitable,
            hide_suggestions=not self._suggestions,
            operation_extensions=None,
        )

    def variable_values(self, variables: dict[str, Any] | None) -> VariableValues:
        """The variables of an operation that runs, as graphql-core wants to have them.

        Its executor has them too, but is a cycle of references that the garbage collector would have to find.
        """
        return self._variables.of_core(variables or {})

    def _program_for(self, variables: dict[str, Any], owner: Hashable) -> Program | str:
        if not self._conditions:
            self._program = self._compile(variables)
            return self._program
        values = tuple([variables.get(name) for name in self._conditions])
        if None in values:
            return "conditions without a value"
        found = self._variants.get(values)
        if found is None:
            found = self._compile(variables)
            self._variants.put(values, found, 1, owner)
        return found

    def _compile(self, variables: dict[str, Any]) -> Program | str:
        if self.kind is OperationType.SUBSCRIPTION:
            return "subscription"
        fragments = {
            definition.name.value: FragmentDetails(definition)
            for definition in self.document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        try:
            with self._phase("compile"):
                plan = plan_operation(self.schema, fragments, self._node, VariableValues({}, variables))
                return generate(self.schema, self._node, plan, suggestions=self._suggestions)
        except UnsupportedOperationError as reason:
            return str(reason)
        except GraphQLError:
            return "conditions without a value"
        except RecursionError:
            return "too deep"


def _conditions(document: DocumentNode) -> list[str]:
    """The variables that @skip and @include depend on, the only directives of operations here."""
    if document.loc and "@" not in document.loc.source.body:
        return []
    names: dict[str, None] = {}

    class Conditions(Visitor):
        def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
            values = [argument.value for argument in node.arguments or ()]
            names.update({value.name.value: None for value in values if isinstance(value, VariableNode)})

    visit(document, Conditions())
    return list(names)


def _result(result: ExecutionResult, executor: CoreExecutor) -> Result:
    found = Result(result.data, result.errors, errors_left_out=executor.errors_left_out)
    return bounded(found, executor.room)


async def _awaited(result: Awaitable[ExecutionResult], executor: CoreExecutor) -> Result:
    return _result(await result, executor)
