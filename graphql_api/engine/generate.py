"""A plan, written down as Python: a function for each kind of object, and one for each value that needs completion.

The source does the common case and calls `completion` for the rest. It is meant to be read: `Program.source`.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import groupby, repeat
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    NonNullTypeNode,
    OperationDefinitionNode,
    OperationType,
    Undefined,
)

from graphql_api.engine import completion
from graphql_api.engine.completion import selection_below
from graphql_api.engine.fields import Argument, Attribute, Batched, Resolver, longest_of
from graphql_api.engine.info import CompiledInfo
from graphql_api.engine.plan import FieldPlan, ObjectPlan, TypeName
from graphql_api.engine.selection import raw_json
from graphql_api.engine.size import MIN_VALUE_BYTES, OBJECT_BYTES, AnswerTooLargeError
from graphql_api.engine.types import enum_members
from graphql_api.engine.values import MAX_INT, MIN_INT, Arguments

if TYPE_CHECKING:
    from graphql_api.engine.runtime import Result, Run, Step

_CHECKS: dict[Any, str] = {
    GraphQLString: "type({0}) is str",
    GraphQLID: "type({0}) is str",
    GraphQLBoolean: "type({0}) is bool",
    GraphQLInt: f"type({{0}}) is int and {MIN_INT} <= {{0}} <= {MAX_INT}",
    GraphQLFloat: "type({0}) is float and isfinite({0})",
}
"""When a value of a built-in scalar is its own answer."""


_FIXED = frozenset({GraphQLBoolean, GraphQLInt, GraphQLFloat})


class Program:
    """An operation as Python: one coroutine function, or the root fields in steps that run one after the other.

    The code that runs it must keep it. Its functions and the fields that they name form reference cycles, the largest
    that the garbage collector would have to find, and are broken when it goes.
    """

    def __init__(self, steps: Sequence[str], source: str, names: dict[str, Any]) -> None:
        exec(compile(source, "<operation>", "exec"), names)  # noqa: S102 - the source is ours; names are quoted in it
        self.steps: Sequence[Step] = [names[step] for step in steps]
        self.source = source
        self._names = names
        self.answer: Callable[[Run], Coroutine[Any, Any, Result]] | None = names.get("answer")

    def __del__(self) -> None:
        for named in self._names.values():
            if isinstance(named, FieldPlan):
                named.release()
        self._names.clear()


def generate(
    schema: GraphQLSchema, operation: OperationDefinitionNode, root: ObjectPlan, *, suggestions: bool
) -> Program:
    """Write the plan of an operation down and compile it."""
    writer = _Writer(schema, _required(operation), suggestions=suggestions)
    if (only := only_awaited(root)) is not None:
        writer.answer(root.fields, *only)
        steps = []
    elif operation.operation is OperationType.MUTATION:
        steps = [writer.step([field]) for field in root.fields]
    else:
        steps = [writer.step(root.fields)]
    source = "\n".join(writer.lines) + "\n"
    return Program(steps, source, writer.names)


class _Writer:
    """Writes functions, the inner ones first."""

    def __init__(self, schema: GraphQLSchema, required: frozenset[str], *, suggestions: bool) -> None:
        self._required = required
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "Info": CompiledInfo,
            "SCHEMA": schema,
            "AnswerTooLargeError": AnswerTooLargeError,
            "isfinite": isfinite,
            "Undefined": Undefined,
            "raw_json": raw_json,
            "repeat": repeat,
            **{name: getattr(completion, name) for name in completion.__all__},
        }
        self._suggestions = suggestions
        self._bound: dict[int, str] = {}
        self._number = 0
        self._batches: list[tuple[FieldPlan, Arguments, str]] = []

    def step(self, fields: Sequence[FieldPlan | TypeName]) -> str:
        """A function for root fields."""
        body, values = self._fields(fields)
        answers = [f"data[{key!r}] = {value}" for key, value in values.items()]
        return self._function("step", "run, source, data", ["path = key = None", *body, *answers])

    def answer(self, fields: Sequence[FieldPlan | TypeName], field: FieldPlan, resolver: Resolver) -> None:
        """The whole operation as one coroutine, which awaits its only root field, or one right below that."""
        lines, call = self._call(field, resolver)
        complete = self._complete(field)
        loads = [batch for batch in self._batches if batch[0].owner is field]
        known = [f"{each.key!r}: {repr(each.name) if isinstance(each, TypeName) else None}" for each in fields]
        bound = self._bind("FIELD", field)
        value = f"{complete}(run, value, at)"
        if not resolver.is_coroutine:
            value += f" if type(value) is list else settle(run, {bound}.value, value, {complete}, at)"
        resolve = [
            *lines[1:],
            f"value = {'await ' if resolver.is_coroutine else ''}{call}",
            f"data[{field.key!r}] = {value}",
        ]
        body = [
            "source, path, key = run.root, None, None",
            f"run.data = data = {{{', '.join(known)}}}",
            _at(field),
            *_guarded(resolve, f"run.fail_late({bound}.value, error, at)"),
            *(self._load(*loads[0]) if len(loads) == 1 else ()),
            "return await run.finish() if run.slices or run.pending else run.result()",
        ]
        self.lines += ["", "async def answer(run):", *_indented(body)]

    def _load(self, field: FieldPlan, arguments: Arguments, batch: str) -> list[str]:
        """Load a batched field, if that is all there is to wait for: by its key, if everything is as usual."""
        values, succeed = [f"values = await {batch}.begin(run, [load])"], [f"{batch}.succeed(run, [load], values)"]
        by_key, selection = cast("Batched", field.resolution).batch.by_key, selection_below(field)
        if by_key and arguments.constant is not None and selection is not None and selection.json is not None:
            attribute, ask, missing = by_key
            given = [f"{name}={self._bind('CONSTANT', value)}" for name, value in arguments.constant.items()]
            asked = ", ".join(["run.context", "wanted", self._bind("FIELDS", selection.json), *given])
            values = [
                f"wanted = list(map({self._bind('get_' + attribute, attrgetter(attribute))}, load[2]))",
                f"asked = {self._bind('ask_' + field.name, ask)}({asked})",
                "if asked is None:",
                f"    {values[0]}",
                "else:",
                "    found = await asked",
                f"    values = raw_json(run, list(map(found.get, wanted, repeat({missing!r}))))",
            ]
            each_row = ["for row, value in zip(load[3], values):", f"    row[{field.key!r}] = value"]
            succeed = ["if asked is None:", *_indented(succeed), "else:", *_indented(each_row)]
        return [
            f"if len(run.slices) == 1 and run.slices[0][0] is {batch} and not run.pending:",
            "    [load], run.slices = run.slices, []",
            "    try:",
            *_indented(_indented(values)),
            "    except Exception as error:",
            f"        {batch}.fail(run, [load], error)",
            "    else:",
            *_indented(_indented(succeed)),
        ]

    def _objects(self, plan: ObjectPlan, field: FieldPlan) -> str:
        """A function for the objects of one type at one position."""
        body, values = self._fields(plan.fields)
        row = f"{{{', '.join(f'{key!r}: {value}' for key, value in values.items())}}}"
        lines = ["room = run.room", f"room.counted += {_bytes(plan)} * len(objects)"]
        if unmeasured := sum(map(_value_length, plan.fields)):
            lines.append(f"run.unmeasured += {unmeasured} * len(objects)")
        lines += ["if room.counted > room.max_counted:", "    raise AnswerTooLargeError(room.bounds)"]
        load = "run.slices.append(({}, path, objects, rows, keys))"
        each_row = [*body, f"rows.append({row})"]
        if field.item and field.item.nullable[0] and _can_fail(plan):
            failed = f"rows.append(run.fail({self._bind('FIELD', field)}.item, error, (path, key, None)))"
            each_row = _guarded(each_row, failed)
            load = "load_survivors(run, {}, path, objects, rows, keys)"
        if body:
            lines += ["rows = []", "for key, source in zip(keys, objects):", *_indented(each_row)]
        else:
            lines.append(f"rows = [{row} for _ in objects]")
        for each in plan.fields:
            if isinstance(each, FieldPlan) and isinstance(each.resolution, Batched):
                lines.append(load.format(self._batch(each, each.resolution)))
        return self._function(f"objects_{plan.type.name}", "run, objects, path, keys", [*lines, "return rows"])

    def _batch(self, field: FieldPlan, batched: Batched) -> str:
        arguments = self._arguments(field, batched.arguments)
        load = self._bind("load_" + field.name, batched.batch.function)
        made_of = [self._bind("FIELD", field), load, self._bind("ARGUMENTS", arguments), self._complete(field)]
        batch = self._made("BATCH", f"BatchCall({', '.join(made_of)})")
        self._batches.append((field, arguments, batch))
        return batch

    # --- fields of an object

    def _fields(self, fields: Sequence[FieldPlan | TypeName]) -> tuple[list[str], dict[str, str]]:
        """How the values come about, in the order of the fields, and the expressions that hold them afterwards."""
        body: list[str] = []
        values: dict[str, str] = {}
        for are_leaves, group in groupby(fields, _is_leaf_attribute):
            if are_leaves:
                leaves = cast("list[FieldPlan]", list(group))
                names = [self._name("value") for _ in leaves]
                body += self._leaf_attributes(leaves, names)
                values.update(zip([leaf.key for leaf in leaves], names, strict=True))
            else:
                values.update((field.key, self._value(body, field)) for field in group)
        return body, values

    def _leaf_attributes(self, fields: list[FieldPlan], values: list[str]) -> list[str]:
        """Read adjacent attributes; on an error, `resume` continues after the last one that was read."""
        lines: list[str] = []
        for field, value in zip(fields, values, strict=True):
            unusual = f"read(run, {self._bind('FIELD', field)}, value, path, key)"
            attribute = cast("Attribute", field.resolution).name
            lines += [f"value = source.{attribute}", f"{value} = {self._leaf(field, 'value', unusual)}"]
        known = f"({', '.join(values)},)"
        resumed = f"{known} = resume(run, {self._bind('FIELDS', fields)}, {known}, error, source, path, key)"
        return [f"{' = '.join(values)} = UNREAD", *_guarded(lines, resumed)]

    def _value(self, body: list[str], field: FieldPlan | TypeName) -> str:
        """Write how a field's value comes about; the expression that holds it afterwards."""
        if isinstance(field, TypeName):
            return repr(field.name)
        bound, value = self._bind("FIELD", field), self._name("value")
        failed = f"{value} = fail(run, {bound}, error, path, key)"
        match field.resolution:
            case Attribute(name=name):
                complete = self._complete(field)
                answer = settled = f"settle(run, {bound}.value, value, {complete}, at)"
                if field.item is not None:
                    answer = f"{complete}(run, value, at) if type(value) is list else {settled}"
                body += _guarded([_at(field), f"value = source.{name}", f"{value} = {answer}"], failed)
            case Resolver(is_coroutine=True) as resolver:
                lines, call = self._call(field, resolver)
                waiting = f"{value} = run.wait({call}, {self._complete(field)}, {bound}.value, at)"
                body += _guarded([*lines, waiting], failed)
            case Resolver() as resolver:
                lines, call = self._call(field, resolver)
                complete = self._complete(field)
                answer = settled = f"settle(run, {bound}.value, value, {complete}, at)"
                if field.is_leaf:
                    answer = self._leaf(field, "value", settled)
                elif field.item is not None:
                    answer = f"{complete}(run, value, at) if type(value) is list else {settled}"
                body += _guarded([*lines, f"value = {call}", f"{value} = {answer}"], failed)
            case Batched() if field.owner is not None:
                return "None"
            case _:
                body.append(f"{value} = delegate(run, {bound}, source, path, key)")
        return value

    def _call(self, field: FieldPlan, resolver: Resolver) -> tuple[list[str], str]:
        """How a resolver is called, and what has to be there before."""
        lines = [_at(field)]
        given = ["source"] if resolver.takes_self else []
        given += [f"{name}=source" for name in resolver.parent_names]
        arguments = self._arguments(field, resolver.arguments)
        written = arguments.written(self._required, self._bind)
        if resolver.info_name is not None or arguments.constant is None:
            lines.append(f"info = Info(run, {self._bind('FIELD', field)}, path, key)")
        if resolver.info_name is not None:
            given.append(f"{resolver.info_name}=info")
        given += [f"**{self._bind('ARGUMENTS', arguments)}.of(run, info)"] if written is None else written
        return lines, f"{self._bind('resolve_' + field.name, resolver.function)}({', '.join(given)})"

    def _arguments(self, field: FieldPlan, arguments: Mapping[str, Argument]) -> Arguments:
        return Arguments(field.definition, field.nodes[0], arguments, suggestions=self._suggestions)

    # --- values

    def _complete(self, field: FieldPlan) -> str:
        """What completes the value of a field that was resolved."""
        bound = self._bind("FIELD", field)
        if field.is_leaf:
            answer = self._leaf(field, "value", f"complete(run, {bound}.value, value, path)")
            body = _guarded([f"return {answer}"], f"return run.fail({bound}.value, error, path)")
            return self._function(f"complete_{field.name}", "run, value, path", body)
        if not field.objects:
            return self._made(f"complete_{field.name}", f"completes_leaves({bound})")
        functions = [f"{name!r}: {self._objects(plan, field)}" for name, plan in field.objects.items()]
        dispatch = f"Dispatch(SCHEMA, {bound}, {{{', '.join(functions)}}})"
        kind = "object" if field.item is None else "objects"
        return self._made(f"complete_{field.name}", f"completes_{kind}({bound}, {dispatch})")

    def _leaf(self, field: FieldPlan, value: str, unusual: str) -> str:
        """The answer of a leaf; `unusual` is the answer of any value not foreseen."""
        if field.type in _CHECKS:
            answer = f"{value} if {_CHECKS[field.type].format(value)} else {unusual}"
        elif isinstance(field.type, GraphQLEnumType):
            names = {id(member): field.type.coerce_output_value(member) for member in enum_members(field.type)}
            answer = f"{self._bind('NAMES', names)}.get(id({value})) or {unusual}"
        else:
            scalar = cast("GraphQLScalarType", field.type)
            serialize = self._bind(f"serialize_{scalar.name}", scalar.coerce_output_value)
            written = (
                f"type({value}) in PLAIN and (answer := {serialize}({value})) is not None and answer is not Undefined"
            )
            answer = f"answer if {written} else {unusual}"
        return f"None if {value} is None else {answer}" if field.value.nullable[0] else answer

    # --- the means

    def _function(self, hint: str, parameters: str, body: list[str]) -> str:
        name = self._name(hint)
        self.lines += ["", f"def {name}({parameters}):", *_indented(body)]
        return name

    def _made(self, hint: str, expression: str) -> str:
        name = self._name(hint)
        self.lines += ["", f"{name} = {expression}"]
        return name

    def _bind(self, hint: str, value: Any) -> str:
        name = self._bound.get(id(value))
        if name is None:
            name = self._bound[id(value)] = self._name(hint)
            self.names[name] = value
        return name

    def _name(self, hint: str) -> str:
        self._number += 1
        return f"{hint}_{self._number}"


def _required(operation: OperationDefinitionNode) -> frozenset[str]:
    """The variables that are never null."""
    definitions = operation.variable_definitions or ()
    return frozenset(each.variable.name.value for each in definitions if isinstance(each.type, NonNullTypeNode))


def _at(field: FieldPlan) -> str:
    parent = "None" if field.owner is None else f"(path, key, {field.owner_name!r})"
    return f"at = ({parent}, {field.key!r}, {field.parent.name!r})"


def _bytes(plan: ObjectPlan) -> int:
    """What an object counts in an answer: its keys and the shortest values, but never less than it takes of memory."""
    return max(OBJECT_BYTES, sum(len(field.key) + MIN_VALUE_BYTES for field in plan.fields))


def _value_length(field: FieldPlan | TypeName) -> int:
    """How long a leaf may be beyond what is counted at least."""
    if isinstance(field, TypeName) or not isinstance(field.type, GraphQLScalarType) or field.type in _FIXED:
        return 0
    return longest_of(field.definition)


def _is_leaf_attribute(field: FieldPlan | TypeName) -> bool:
    return isinstance(field, FieldPlan) and isinstance(field.resolution, Attribute) and field.is_leaf


def only_awaited(root: ObjectPlan) -> tuple[FieldPlan, Resolver] | None:
    """The only root field, if it is awaited, or one batched field right below it."""
    resolved = [field for field in root.fields if isinstance(field, FieldPlan)]
    if len(resolved) != 1 or not isinstance(resolved[0].resolution, Resolver):
        return None
    [field] = resolved
    below = [each for plan in field.objects.values() for each in plan.fields if isinstance(each, FieldPlan)]
    loads = sum(isinstance(each.resolution, Batched) for each in below)
    return (field, resolved[0].resolution) if resolved[0].resolution.is_coroutine or loads == 1 else None


def _can_fail(plan: ObjectPlan) -> bool:
    return any(isinstance(field, FieldPlan) and not field.value.nullable[0] for field in plan.fields)


def _guarded(body: list[str], failed: str) -> list[str]:
    return ["try:", *_indented(body), "except Exception as error:", f"    {failed}"]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
