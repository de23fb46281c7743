"""What generated code calls to make answers of resolved values: objects by their class, batches, the unusual.

Whatever is unusual goes, value by value, to graphql-core's own executor, with the path and nodes that it would have
had there.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import UUID

from graphql import GraphQLBoolean, GraphQLError, GraphQLID, GraphQLSchema, GraphQLString

from graphql_api.engine.batching import BatchFunction, check_number
from graphql_api.engine.executor import is_awaitable
from graphql_api.engine.info import CompiledInfo
from graphql_api.engine.paths import PathLink, core_path
from graphql_api.engine.plan import FieldPlan, Position
from graphql_api.engine.runtime import BatchSlice, Complete, Run
from graphql_api.engine.selection import RawJSON, Selection
from graphql_api.engine.size import AnswerTooLargeError
from graphql_api.engine.types import CAST, heeds_casts, object_type_of
from graphql_api.engine.values import Arguments

if TYPE_CHECKING:
    from graphql_api.engine.fields import Attribute

__all__ = [
    "PLAIN",
    "UNREAD",
    "BatchCall",
    "Dispatch",
    "complete",
    "completes_leaves",
    "completes_object",
    "completes_objects",
    "delegate",
    "fail",
    "load_survivors",
    "read",
    "resume",
    "settle",
]

Objects: TypeAlias = "Callable[[Run, list[Any], PathLink | None, Sequence[str | int]], list[Any]]"
"""Makes the answers of objects of one type, which stand at one place under these keys."""


class Dispatch(dict[type, "Objects"]):
    """The objects that may stand at a position: generated functions, by the classes of what resolvers return.

    `of` finds those that are not known yet, and those whose objects must be looked at one by one.
    """

    def __init__(self, schema: GraphQLSchema, field: FieldPlan, by_name: Mapping[str, Objects]) -> None:
        super().__init__({RawJSON: _as_they_are} if field.takes_json else {})
        self.position = field.item or field.value
        self._schema = schema
        self._type = field.type
        self._by_name = by_name
        self._castable: dict[type, Objects] = {}

    def of(self, objects: list[Any]) -> "Objects | None":
        """The function for objects of one class; None if graphql-core must handle them."""
        class_ = type(objects[0])
        found = self.get(class_) or self._castable.get(class_) or self._find(objects[0])
        if class_ in self._castable:
            for each in objects:
                if CAST in each.__dict__:
                    return None
        return found

    def _find(self, value: Any) -> "Objects | None":
        type_ = object_type_of(self._schema, self._type, value)
        if type_ is None:
            return None
        is_castable = heeds_casts(self._type, type_) and hasattr(value, "__dict__")
        known = self._castable if is_castable else self
        found = known[type(value)] = self._by_name[type_.name]
        return found


def _as_they_are(_run: Run, objects: list[Any], _path: "PathLink | None", _keys: Sequence[str | int]) -> list[Any]:
    return objects


def completes_object(field: FieldPlan, dispatch: Dispatch) -> Complete:
    """Makes what completes a field that holds an object."""
    position, nullable = field.value, field.value.nullable[0]

    def complete_field(run: Run, value: Any, path: PathLink) -> Any:
        if value is None and nullable:
            return None
        try:
            objects = dispatch.get(type(value)) or dispatch.of([value])
            if objects is None:
                return complete(run, position, value, path)
            return objects(run, [value], path[0], (path[1],))[0]
        except Exception as error:  # noqa: BLE001 - located already, for the place above
            return run.fail(position, error, path)

    return complete_field


def completes_objects(field: FieldPlan, dispatch: Dispatch) -> Complete:
    """Makes what completes a field that holds a list of objects."""
    position, nullable, takes_json = field.value, field.value.nullable[0], field.takes_json

    def complete_field(run: Run, value: Any, path: PathLink) -> Any:
        if type(value) is list:
            if not value:
                return []
            try:
                # Objects of one class, as they mostly are, are answered together.
                objects = None
                if len(value) == 1 or len(set(map(type, value))) == 1:
                    objects = dispatch.get(type(value[0])) or dispatch.of(value)
                if objects is not None:
                    return objects(run, value, path, range(len(value)))
                return _complete_mixed(run, value, path, dispatch)
            except Exception as error:  # noqa: BLE001 - located already, for the place above
                return run.fail(position, error, path)
        if (value is None and nullable) or (type(value) is RawJSON and takes_json):
            return value
        return complete(run, position, value, path)

    return complete_field


_SAME: dict[Any, frozenset[type]] = {
    GraphQLString: frozenset({str}),
    GraphQLID: frozenset({str}),
    GraphQLBoolean: frozenset({bool}),
}
"""The classes of values that are their own answers whatever they hold."""


def completes_leaves(field: FieldPlan) -> Complete:
    """Makes what completes a field that holds a list of scalars or enums, or of lists."""
    position, nullable, same = field.value, field.value.nullable[0], _SAME.get(field.type, frozenset())

    def complete_field(run: Run, value: Any, path: PathLink) -> Any:
        if type(value) is list and same.issuperset(map(type, cast("list[Any]", value))):
            return cast("list[Any]", value).copy()
        return None if value is None and nullable else complete(run, position, value, path)

    return complete_field


PLAIN: frozenset[type] = frozenset(
    {str, int, float, bool, list, dict, dt.datetime, dt.date, dt.time, Decimal, UUID, RawJSON}
)
"""Classes whose values can be serialized without a look at whether they are errors or awaitable."""


def _complete_object(run: Run, value: Any, path: PathLink, dispatch: Dispatch) -> Any:
    objects = dispatch.get(type(value)) or dispatch.of([value])
    if objects is None:
        return complete(run, dispatch.position, value, path)
    above, key, _ = path
    return objects(run, [value], above, (key,))[0]


def _complete_mixed(run: Run, items: list[Any], path: PathLink, dispatch: Dispatch) -> list[Any]:
    """The answers of a list of objects. Neighbours of one class are made together."""
    answers: list[Any] = [None] * len(items)
    late = partial(_complete_object, dispatch=dispatch)
    for key, item in enumerate(items):
        if is_awaitable(item):
            run.wait(item, late, dispatch.position, (path, key, None))

    def class_of(key: int) -> type:
        return type(items[key])

    for _, group in groupby(range(len(items)), class_of):
        keys = list(group)
        neighbours = items[keys[0] : keys[-1] + 1]
        objects = dispatch.of(neighbours)
        if objects is not None:
            answers[keys[0] : keys[-1] + 1] = objects(run, neighbours, path, keys)
            continue
        for key, item in zip(keys, neighbours, strict=True):
            if not is_awaitable(item):
                answers[key] = complete(run, dispatch.position, item, (path, key, None))
    return answers


def complete(run: Run, position: Position, value: Any, path: PathLink) -> Any:
    """Have graphql-core complete a value that was resolved for this place.

    An error that stands for a value would be raised there, and hold on to itself by what its traceback leads to.
    """
    if isinstance(value, Exception):
        return run.report(position, value, path)
    field = position.field
    info = run.resolve_info(field, path if position is field.value else cast("PathLink", path[0]))
    try:
        answer = run.core.complete_value(cast("Any", position.type), field.details, info, core_path(path), value, None)
    except Exception as error:  # noqa: BLE001 - serializers and the like may raise anything
        return run.fail(position, error, path)
    return run.wait(answer, _as_it_is, position, path) if is_awaitable(answer) else answer


def settle(run: Run, position: Position, value: Any, complete: Complete, path: PathLink) -> Any:
    """The answer of what a resolver gave, which may be awaitable."""
    return run.wait(value, complete, position, path) if is_awaitable(value) else complete(run, value, path)


def read(run: Run, field: FieldPlan, value: Any, above: "PathLink | None", key: str | int | None) -> Any:
    """Have graphql-core complete an attribute, which may be awaitable."""
    path = field.path_in(above, key)
    if not is_awaitable(value):
        return complete(run, field.value, value, path)
    return run.wait(value, lambda run, value, path: complete(run, field.value, value, path), field.value, path)


UNREAD = object()
"""What an attribute is before it is read."""


def resume(
    run: Run,
    fields: Sequence[FieldPlan],
    known: tuple[Any, ...],
    error: Exception,
    source: Any,
    above: "PathLink | None",
    key: str | int | None,
) -> list[Any]:
    """The answers of neighbouring attributes, the first of which that is not known could not be read."""
    answers = list(known)
    first = next(index for index, answer in enumerate(answers) if answer is UNREAD)
    answers[first] = fail(run, fields[first], error, above, key)
    for index, field in enumerate(fields[first + 1 :], start=first + 1):
        try:
            answers[index] = read(run, field, getattr(source, cast("Attribute", field.resolution).name), above, key)
        except Exception as another:  # noqa: BLE001 - an attribute may raise anything
            answers[index] = fail(run, field, another, above, key)
    return answers


def fail(run: Run, field: FieldPlan, error: Exception, above: "PathLink | None", key: str | int | None) -> None:
    """Report an error of a field."""
    run.fail(field.value, error, field.path_in(above, key))


def delegate(run: Run, field: FieldPlan, source: Any, above: "PathLink | None", key: str | int | None) -> Any:
    """Have graphql-core resolve a field, with all that is below it."""
    path = field.path_in(above, key)
    answer: Any = run.core.execute_field(field.parent, source, field.details, core_path(path), None)
    return run.wait(answer, _as_it_is, field.value, path) if is_awaitable(answer) else answer


def _as_it_is(_run: Run, answer: Any, _path: PathLink) -> Any:
    return answer


# --- batches --------------------------------------------------------------------------------------------------------


def selection_below(field: FieldPlan) -> Selection | None:
    """The selection that a batch function gets: that of the only type, or nothing."""
    return next(iter(field.objects.values())).selection if len(field.objects) == 1 else None


class BatchCall:
    """A batched field at one point of an operation: how it is called, and what becomes of the values."""

    __slots__ = ("_arguments", "_complete", "_function", "_selection", "_takes_json", "field", "path_in")

    def __init__(self, field: FieldPlan, function: BatchFunction, arguments: Arguments, complete: Complete) -> None:
        self.field = field
        self.path_in = field.path_in
        self._function = function
        self._arguments = arguments
        self._complete = complete
        self._selection = selection_below(field)
        self._takes_json = field.takes_json

    async def begin(self, run: Run, slices: list[BatchSlice]) -> Sequence[Any]:
        """The values of all parents in these slices."""
        _, path, parents, _, keys = slices[0]
        if len(slices) > 1:
            parents = [parent for slice_ in slices for parent in slice_[2]]
        info = CompiledInfo(run, self.field, path, keys[0])
        return await self._function(parents, info, selection=self._selection, **self._arguments.of(run, info))

    def succeed(self, run: Run, slices: list[BatchSlice], values: Any) -> None:
        """Complete the values and put them in their places."""
        number = len(slices[0][2]) if len(slices) == 1 else sum([len(slice_[2]) for slice_ in slices])
        if type(values) is not list or len(values) != number:
            try:
                check_number(values, number)
            except Exception as error:  # noqa: BLE001 - what was answered may be no list at all
                self.fail(run, slices, error)
                return
        field, complete, takes_json, key = self.field, self._complete, self._takes_json, self.field.key
        following = iter(values)
        for _, path, _, rows, keys in slices:
            for row, at, value in zip(rows, keys, following, strict=False):
                if takes_json and type(value) is RawJSON:
                    row[key] = value
                    continue
                own = field.path_in(path, at)
                try:
                    row[key] = complete(run, value, own)
                except GraphQLError as error:
                    run.propagate(error, field.value, own)
                    if run.data is None:
                        return

    def fail(self, run: Run, slices: list[BatchSlice], error: Exception) -> None:
        """Report the error for each parent."""
        field = self.field
        if isinstance(error, AnswerTooLargeError):
            run.propagate(error, field.value, field.path_in(slices[0][1], slices[0][4][0]))
            return
        if not field.value.nullable[0]:
            self.succeed(run, slices, [error] * sum(len(slice_[2]) for slice_ in slices))
            return
        for _, path, _, _, keys in slices:
            for key in keys:
                run.report(field.value, error, field.path_in(path, key))


def load_survivors(
    run: Run,
    call: BatchCall,
    path: "PathLink | None",
    objects: list[Any],
    rows: list[dict[str, Any] | None],
    keys: Sequence[str | int],
) -> None:
    """Note a batched field for those of the objects whose answers have not become null."""
    alive = [each for each in zip(objects, rows, keys, strict=True) if each[1] is not None]
    if alive:
        survivors, answers, alive_keys = map(list, zip(*alive, strict=True))
        run.slices.append((call, path, survivors, answers, alive_keys))
