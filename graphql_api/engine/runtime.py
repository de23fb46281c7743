"""One running operation: its steps, what it waits for, and how failures travel to the place that can hold null."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from graphql import GraphQLError, GraphQLResolveInfo
from graphql.execution.values import VariableValues

from graphql_api.engine.executor import CoreExecutor
from graphql_api.engine.paths import PathLink, core_path, keys_of
from graphql_api.engine.plan import FieldPlan, Position
from graphql_api.engine.size import AnswerTooLargeError, Room, fits

Step: TypeAlias = "Callable[[Run, Any, dict[str, Any]], None]"
"""Resolves root fields of a source into the data."""

Complete: TypeAlias = "Callable[[Run, Any, PathLink], Any]"
"""Makes the answer of a resolved value; raises a located error if null is not allowed."""


BatchSlice: TypeAlias = "tuple[BatchLoad, PathLink | None, list[Any], list[dict[str, Any]], Sequence[str | int]]"
"""A batched field to load for the objects of one list, or for one object: how it is loaded; the path of the list, or of
what holds the object; the parents; their answers, to which the field's values will be added; their keys below the path.
"""


_new = tuple.__new__  # of a named tuple: its class would be a call more, for each execution
_NO_STEPS: "Iterator[Step]" = iter(())
_NOTHING_RUNS: "dict[Waiting, asyncio.Future[Any]]" = {}  # shared by all that await one thing at a time, as most do


class BatchLoad(Protocol):
    """Loads one batched field."""

    def begin(self, run: "Run", slices: list[BatchSlice]) -> Awaitable[Any]:
        """Ask for the values of all parents in these slices."""
        ...

    def succeed(self, run: "Run", slices: list[BatchSlice], values: Any) -> None:
        """Complete the values and put them in their places."""
        ...

    def fail(self, run: "Run", slices: list[BatchSlice], error: Exception) -> None:
        """Report the error for each parent."""
        ...

    def path_in(self, above: "PathLink | None", key: str | int) -> PathLink:
        """The path of the field in the object under this key below a path."""
        ...


class CoreFallback(Protocol):
    """How an execution reaches graphql-core."""

    def core_executor(
        self, variables: dict[str, Any] | None, context: Any, root: Any
    ) -> CoreExecutor | list[GraphQLError]:
        """graphql-core's executor of the same operation."""
        ...

    def variable_values(self, variables: dict[str, Any] | None) -> VariableValues:
        """The variables as graphql-core has them."""
        ...


class Result(NamedTuple):
    """What an operation answered.

    `executed` is false if the request was refused before anything ran, as wrong variables are: such an answer has
    no `data` entry at all, which is not the same as `data: null`.
    """

    data: dict[str, Any] | None
    errors: list[GraphQLError] | None
    executed: bool = True
    errors_left_out: int = 0
    """How many errors there are beyond those in `errors`; their nulls are in the data."""


def bounded(result: Result, room: Room, unmeasured: int | None = None) -> Result:
    """The result, or the error in its place if the answer is too large: by what was counted, or else measured.

    It need not be measured if what was not counted has a bound, and would fit, too.
    """
    if unmeasured is not None and room.counted + room.written + unmeasured <= room.max_bytes:
        return result
    if room.counted > room.max_counted or not fits(result.data, room.max_bytes - room.written):
        return Result(None, [AnswerTooLargeError(room.bounds)])
    return result


class Waiting(ABC):
    """Something that is not there yet, and what to do when it is."""

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable

    @abstractmethod
    def succeed(self, run: "Run", value: Any) -> None:
        """Complete the value and put it in its place."""

    @abstractmethod
    def fail(self, run: "Run", error: Exception) -> None:
        """Report the error; null stands in the place already."""

    @abstractmethod
    def is_below(self, keys: list[str | int]) -> bool:
        """Whether it all lies at or below this place."""


class WaitingValue(Waiting):
    """The value of one place."""

    __slots__ = ("_complete", "_path", "_position")

    def __init__(self, awaitable: Awaitable[Any], complete: Complete, position: Position, path: PathLink) -> None:
        self.awaitable = awaitable
        self._complete = complete
        self._position = position
        self._path = path

    def succeed(self, run: "Run", value: Any) -> None:
        """Complete the value and put it in its place."""
        try:
            answer = self._complete(run, value, self._path)
        except GraphQLError as error:
            run.propagate(error, self._position, self._path)
        else:
            run.put(self._path, answer)

    def fail(self, run: "Run", error: Exception) -> None:
        """Report the error; null stands in the place already."""
        run.fail_late(self._position, error, self._path)

    def is_below(self, keys: list[str | int]) -> bool:
        """Whether it lies at or below this place."""
        return keys_of(self._path)[: len(keys)] == keys


class WaitingBatch(Waiting):
    """The values of one field for many parents."""

    __slots__ = ("_call", "_slices")

    def __init__(self, awaitable: Awaitable[Any], call: BatchLoad, slices: list[BatchSlice]) -> None:
        super().__init__(awaitable)
        self._call = call
        self._slices = slices

    def succeed(self, run: "Run", value: Any) -> None:
        """Complete the values and put them in their places."""
        self._call.succeed(run, self._slices, value)

    def fail(self, run: "Run", error: Exception) -> None:
        """Report the error for each parent."""
        self._call.fail(run, self._slices, error)

    def is_below(self, keys: list[str | int]) -> bool:
        """Whether it all lies at or below this place."""
        return all(
            keys_of(self._call.path_in(path, at))[: len(keys)] == keys
            for _, path, _, _, all_at in self._slices
            for at in all_at
        )


class Run:
    """The state of one execution."""

    __slots__ = (
        "_core",
        "_fallback",
        "_raw",
        "_ready",
        "_running",
        "_wakeup",
        "context",
        "data",
        "pending",
        "room",
        "root",
        "slices",
        "unmeasured",
        "variables",
    )

    def __init__(
        self,
        fallback: CoreFallback,
        raw: dict[str, Any] | None,
        variables: dict[str, Any],
        context: Any,
        root: Any,
        room: Room,
    ) -> None:
        self._fallback = fallback
        self._raw = raw
        self._core: CoreExecutor | None = None
        self.variables = variables
        self.context = context
        self.root = root
        self.data: Any = {}
        self.pending: list[Waiting] = []
        self.slices: list[BatchSlice] = []
        self._running = _NOTHING_RUNS
        self.room = room
        self.unmeasured = 0

    # --- what graphql-core is asked for

    @property
    def core(self) -> CoreExecutor:
        """graphql-core's executor of the same execution, made when something unusual needs it."""
        if self._core is None:
            self._core = cast("CoreExecutor", self._fallback.core_executor(self._raw, self.context, self.root))
            self._core.room = self.room
        return self._core

    @property
    def variable_values(self) -> VariableValues:
        """The variables as graphql-core wants to have them."""
        return self._fallback.variable_values(self._raw)

    def resolve_info(self, field: FieldPlan, path: PathLink) -> GraphQLResolveInfo[Any]:
        """What graphql-core tells a resolver."""
        return self.core.build_resolve_info(field.definition, field.nodes, field.parent, core_path(path))

    # --- the course of an execution

    def start(self, steps: Sequence[Step]) -> Result | Coroutine[Any, Any, Result]:
        """Run the root fields, one step after the other: at once as long as nothing has to be awaited."""
        remaining = iter(steps)
        for step in remaining:
            self._take(step)
            if self.slices or self.pending:
                return self.finish(remaining)
            if self.data is None:
                break
        return self.result()

    async def finish(self, remaining: Iterator[Step] = _NO_STEPS) -> Result:  # noqa: C901 - a function of its own costs each wait
        """Await what is pending, and what becomes pending by that, before the next step is taken."""
        try:
            while True:
                while self.slices or self.pending or self._running:
                    if self._running or len(self.slices) + len(self.pending) > 1:
                        self._flush()
                        await self._resume_ready()
                    elif self.slices:  # nothing but one batched field
                        slices, self.slices = self.slices, []
                        call = slices[0][0]
                        try:
                            values = await call.begin(self, slices)
                        except Exception as error:  # noqa: BLE001 - a resolver may raise anything
                            call.fail(self, slices, error)
                        else:
                            call.succeed(self, slices, values)
                    else:  # nothing but one value
                        waiting = self.pending.pop()
                        try:
                            value = await waiting.awaitable
                        except Exception as error:  # noqa: BLE001 - as above
                            waiting.fail(self, error)
                        else:
                            waiting.succeed(self, value)
                step = None if self.data is None else next(remaining, None)
                if step is None:
                    return self.result()
                self._take(step)
        except (Exception, asyncio.CancelledError):
            await self._cancel()
            raise

    def _take(self, step: Step) -> None:
        try:
            step(self, self.root, self.data)
        except GraphQLError as error:
            self._null_root(error)

    def _flush(self) -> None:
        """Call each batch function once for all parents that have come together."""
        by_call: dict[BatchLoad, list[BatchSlice]] = {}
        for slice_ in self.slices:
            by_call.setdefault(slice_[0], []).append(slice_)
        self.slices = []
        self.pending += [WaitingBatch(call.begin(self, same), call, same) for call, same in by_call.items()]

    def result(self) -> Result:
        """What was answered, when nothing is awaited any more."""
        core, room = self._core, self.room
        if core is None:
            result = _new(Result, (self.data, None, True, 0))
            if room.counted + room.written + self.unmeasured <= room.max_bytes:
                return result
            return bounded(result, room)
        result = Result(self.data, core.end() or None, errors_left_out=core.errors_left_out)
        return bounded(result, room, None if core.has_objects else self.unmeasured)

    # --- waiting

    def wait(self, awaitable: Awaitable[Any], complete: Complete, position: Position, path: PathLink) -> None:
        """Note that a value is not there yet; null stands in its place until then."""
        self.pending.append(WaitingValue(awaitable, complete, position, path))

    async def _resume_ready(self) -> None:
        """Let all that is pending run at the same time; those who become ready together go on together."""
        self._wakeup = asyncio.get_running_loop().create_future()
        if not self._running:
            self._running, self._ready = {}, []
        self._launch()
        await self._wakeup
        ready, self._ready = self._ready, []
        for waiting in ready:
            self._settle(waiting)

    def _launch(self) -> None:
        for waiting in self.pending:
            future = self._running[waiting] = asyncio.ensure_future(waiting.awaitable)
            future.add_done_callback(partial(self._done, waiting))
        self.pending = []

    def _done(self, waiting: Waiting, future: "asyncio.Future[Any]") -> None:
        if waiting in self._running:
            self._ready.append(waiting)
        else:
            _retrieve_exception(future)
        if not self._wakeup.done():
            self._wakeup.set_result(None)

    def _settle(self, waiting: Waiting) -> None:
        future = self._running.pop(waiting, None)
        if future is None:
            return
        try:
            value = future.result()
        except Exception as error:  # noqa: BLE001 - a resolver may raise anything
            waiting.fail(self, error)
        else:
            waiting.succeed(self, value)

    async def _cancel(self) -> None:
        running, self._running = list(self._running.values()), {}
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # --- failures

    def fail(self, position: Position, error: Exception, path: PathLink) -> None:
        """Report an error of a value whose parts may be waited for already; raises as `report` does."""
        self.report(position, error, path)
        self._abandon_below(path)

    def fail_late(self, position: Position, error: Exception, path: PathLink) -> None:
        """Report an error of a value in whose place null stands already, or higher up if it may not stand there."""
        try:
            self.fail(position, error, path)
        except GraphQLError as located:
            self.propagate(located, position, path)

    def report(self, position: Position, error: Exception, path: PathLink) -> None:
        """Report an error if null is allowed here, which is the answer then; else raise it with its location."""
        if position.nullable[0] and self.core.is_full and not isinstance(error, AnswerTooLargeError):
            self.core.errors_left_out += 1
            return
        self.core.handle_field_error(error, cast("Any", position.type), position.field.details, core_path(path))

    def propagate(self, error: GraphQLError, position: Position, path: PathLink) -> None:
        """Propagate a null to the nearest place above that may be null."""
        if isinstance(error, AnswerTooLargeError):
            self._null_root(error)
            return
        for nullable in position.nullable:
            if nullable:
                self.put(path, None)
                self.core.collect(error, core_path(path))
                self._abandon_below(path)
                return
            path = cast("PathLink", path[0])
        self._null_root(error)

    def put(self, path: PathLink, value: Any) -> None:
        """Put a value that was waited for into its place, unless something above has become null."""
        if path[0] is None:
            if self.data is not None:
                self.data[path[1]] = value
            return
        *above, last = keys_of(path)
        target: Any = self.data
        for key in above:
            target = None if target is None else target[key]
        if target is not None:
            target[last] = value

    def _null_root(self, error: GraphQLError) -> None:
        self.data = None
        self.slices = []
        self.core.collect(error, None)
        self._abandon_below(None)

    def _abandon_below(self, path: "PathLink | None") -> None:
        """Stop waiting for what is below a path that is null now. Tasks of our own are cancelled."""
        if not self.pending and not self._running:
            return
        keys = keys_of(path)
        left = [waiting for waiting in self.pending if waiting.is_below(keys)]
        if left:
            self.pending = [waiting for waiting in self.pending if waiting not in left]
            self.core.settle_in_background([waiting.awaitable for waiting in left])
        for waiting in [waiting for waiting in self._running if waiting.is_below(keys)]:
            future = self._running.pop(waiting)
            if future.done():
                _retrieve_exception(future)
            elif future is not waiting.awaitable:
                future.cancel()


def _retrieve_exception(future: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of a future that is not needed any more, or asyncio would log it."""
    if not future.cancelled():
        future.exception()
