"""What runs at the same time, what waits for what, what is cancelled: by events, never by the clock."""

import asyncio
import gc
from dataclasses import dataclass, field

import pytest
import strawberry
from strawberry.permission import BasePermission

from graphql_api.engine import Engine, batched


@dataclass
class Context:
    loaders: dict = field(default_factory=dict)
    log: list = field(default_factory=list)
    gates: dict = field(default_factory=dict)

    def gate(self, name):
        """What a resolver of this name waits for."""
        return self.gates.setdefault(name, asyncio.Event())


async def passed(info, name):
    """Wait at the gate of this name, and note what happens."""
    info.context.log.append(f"{name} begins")
    try:
        await info.context.gate(name).wait()
    except asyncio.CancelledError:
        info.context.log.append(f"{name} cancelled")
        raise
    info.context.log.append(f"{name} ends")


class Anyone(BasePermission):
    message = "nobody"

    async def has_permission(self, source, info, **_):
        return True


async def loaded_of(parents: list, info: strawberry.Info, *, selection) -> list:
    await passed(info, "batch " + "".join(sorted(parent.name for parent in parents)))
    return [Thing(name=parent.name * 2) for parent in parents]


async def broken_of(parents: list, info: strawberry.Info, *, selection) -> list:
    await passed(info, "broken batch")
    raise ValueError("the batch failed")


@strawberry.type
class Thing:
    name: str

    @strawberry.field
    async def slow(self, info: strawberry.Info) -> "Thing":
        await passed(info, f"slow {self.name}")
        return Thing(name=f"{self.name}s")

    @strawberry.field
    def quick(self, info: strawberry.Info) -> "Thing":
        info.context.log.append(f"quick {self.name}")
        return Thing(name=f"{self.name}q")

    @strawberry.field
    async def fails(self, info: strawberry.Info) -> str:
        await passed(info, f"fails {self.name}")
        raise ValueError("it failed")

    @strawberry.field
    def fails_at_once(self) -> str:
        raise ValueError("it failed at once")

    @strawberry.field(permission_classes=[Anyone])
    async def guarded(self, info: strawberry.Info) -> str:
        await passed(info, f"guarded {self.name}")
        return "guarded"

    @strawberry.field
    async def picky(self, info: strawberry.Info) -> str:
        await passed(info, f"picky {self.name}")
        if self.name == "a":
            raise ValueError("not a")
        return "fine"

    @strawberry.field
    def parts(self) -> list["Thing | None"]:
        return [Thing(name=f"{self.name}1")]

    loaded: "Thing" = batched(loaded_of)
    broken: "Thing" = batched(broken_of)


@strawberry.type
class Query:
    @strawberry.field
    async def thing(self, info: strawberry.Info, name: str) -> Thing | None:
        await passed(info, name)
        return Thing(name=name)

    @strawberry.field
    async def required(self, info: strawberry.Info, name: str) -> Thing:
        await passed(info, name)
        return Thing(name=name)

    @strawberry.field
    def here(self) -> Thing | None:
        return Thing(name="h")

    @strawberry.field
    async def things(self, info: strawberry.Info) -> list[Thing | None]:
        async def item(name):
            await passed(info, name)
            return Thing(name=name)

        return [item("a"), item("b"), Thing(name="c")]

    @strawberry.field
    def twins(self) -> list[Thing | None]:
        return [Thing(name="a"), Thing(name="b")]

    @strawberry.field
    def shared(self, info: strawberry.Info) -> Thing | None:
        future = info.context.gates.setdefault("future", asyncio.get_running_loop().create_future())
        info.context.log.append("shared")
        return future

    @strawberry.field
    async def stubborn(self, info: strawberry.Info) -> str:
        try:
            await passed(info, "stubborn")
        except asyncio.CancelledError:
            raise ValueError("it failed instead of ending") from None
        return "fine"


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, info: strawberry.Info, name: str) -> Thing | None:
        await passed(info, name)
        return Thing(name=name)


ENGINE = Engine(strawberry.Schema(query=Query, mutation=Mutation)._schema)


class Execution:
    """An operation on its way."""

    def __init__(self, query):
        self.context = Context()
        self.task = asyncio.ensure_future(ENGINE.prepare(query).execute({}, self.context))

    async def turns(self):
        """Let everything happen that can happen now."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.context.log

    async def open(self, *names):
        """Let those through who wait at these gates, and whatever follows from that."""
        for name in names:
            self.context.gate(name).set()
        return await self.turns()

    async def answer(self):
        return await asyncio.wait_for(self.task, 10)


async def test_siblings_begin_together():
    run = Execution('{ a: thing(name: "a") { name } b: thing(name: "b") { name } here { slow { name } } }')
    assert await run.turns() == ["a begins", "b begins", "slow h begins"]
    await run.open("b", "slow h", "a")
    assert (await run.answer()).data == {"a": {"name": "a"}, "b": {"name": "b"}, "here": {"slow": {"name": "hs"}}}


async def test_a_slow_sibling_does_not_delay_what_is_below_a_fast_one():
    run = Execution('{ a: thing(name: "a") { name } b: thing(name: "b") { slow { quick { name } } } }')
    await run.turns()
    await run.open("b")
    assert (await run.open("slow b"))[-3:] == ["slow b begins", "slow b ends", "quick bs"]
    await run.open("a")
    assert (await run.answer()).data["b"] == {"slow": {"quick": {"name": "bsq"}}}


async def test_batches_do_not_wait_for_slow_siblings():
    run = Execution('{ a: thing(name: "a") { name } here { loaded { slow { name } } } }')
    await run.turns()
    assert (await run.open("batch h"))[-1] == "slow hh begins"
    await run.open("slow hh", "a")
    assert (await run.answer()).errors is None


async def test_those_who_become_ready_together_are_batched_together():
    run = Execution("{ things { loaded { name } } }")
    assert (await run.turns())[-1] == "batch c begins"
    assert (await run.open("a", "b"))[-1] == "batch ab begins"
    await run.open("batch ab", "batch c")
    assert [thing["loaded"]["name"] for thing in (await run.answer()).data["things"]] == ["aa", "bb", "cc"]


async def test_mutations_wait_for_all_that_is_below_the_one_before():
    run = Execution('mutation { a: change(name: "a") { slow { loaded { name } } } b: change(name: "b") { name } }')
    await run.turns()
    log = await run.open("a", "b", "slow a")
    assert log[-1] == "batch as begins"
    assert "b begins" not in log
    await run.open("batch as")
    assert (await run.answer()).data == {"a": {"slow": {"loaded": {"name": "asas"}}}, "b": {"name": "b"}}


async def test_one_future_may_stand_in_several_places():
    run = Execution("{ a: shared { name } b: shared { slow { name } } }")
    await run.turns()
    run.context.gates["future"].set_result(Thing(name="f"))
    await run.open("slow f")
    assert (await run.answer()).data == {"a": {"name": "f"}, "b": {"slow": {"name": "fs"}}}


@pytest.mark.parametrize(
    ("query", "begun"),
    [
        ('{ thing(name: "a") { name } }', ["a"]),
        ('{ a: thing(name: "a") { name } b: thing(name: "b") { name } }', ["a", "b"]),
        ("{ here { loaded { name } slow { name } } }", ["batch h", "slow h"]),
        ("{ here { guarded } }", ["guarded h"]),
        ("{ things { name } }", ["a", "b"]),
        ('mutation { change(name: "a") { name } }', ["a"]),
    ],
)
async def test_cancellation_cancels_all_that_was_begun(query, begun):
    run = Execution(query)
    assert sorted(await run.turns()) == [f"{name} begins" for name in begun]
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.answer()
    assert sorted(run.context.log[len(begun) :]) == sorted(f"{name} cancelled" for name in begun)


async def test_cancellation_is_what_happened_though_a_resolver_fails_meanwhile():
    run = Execution('{ stubborn b: thing(name: "b") { name } }')
    await run.turns()
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.answer()
    assert sorted(run.context.log[2:]) == ["b cancelled", "stubborn cancelled"]


async def test_a_resolver_that_is_cancelled_from_within_cancels_the_operation():
    run = Execution('{ a: shared { name } b: thing(name: "b") { name } }')
    await run.turns()
    run.context.gates["future"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.answer()
    assert run.context.log[-1] == "b cancelled"


async def test_what_an_error_made_null_is_waited_for_no_longer():
    run = Execution('{ here { slow { name } fails } b: thing(name: "b") { name } }')
    await run.turns()
    assert (await run.open("fails h"))[-1] == "slow h cancelled"
    await run.open("b")
    answer = await run.answer()
    assert answer.data == {"here": None, "b": {"name": "b"}}
    assert [error.path for error in answer.errors] == [["here", "fails"]]


async def test_the_answer_is_there_as_soon_as_an_error_made_all_of_it_null():
    run = Execution('{ a: required(name: "a") { fails slow { name } } b: thing(name: "b") { name } }')
    await run.turns()
    await run.open("a")
    await run.open("fails a")
    answer = await run.answer()
    assert answer.data is None
    assert sorted(run.context.log[-2:]) == ["b cancelled", "slow a cancelled"]


async def test_a_batch_for_many_goes_on_for_those_that_are_left():
    run = Execution("{ twins { parts { broken { name } } picky } }")
    await run.turns()
    await run.open("picky a")
    await run.open("broken batch")
    await run.open("picky b")
    answer = await run.answer()
    assert answer.data == {"twins": [None, {"parts": [None], "picky": "fine"}]}
    assert [error.path for error in answer.errors] == [["twins", 0, "picky"], ["twins", 1, "parts", 0, "broken"]]


async def test_what_was_not_begun_when_an_error_made_it_null_goes_on_by_itself():
    context = Context()
    answer = await ENGINE.prepare("{ here { slow { name } loaded { name } failsAtOnce } }").execute({}, context)
    assert answer.data == {"here": None}
    context.gate("slow h").set()
    for _ in range(9):
        await asyncio.sleep(0)
    assert context.log == ["slow h begins", "slow h ends"]


async def test_a_future_of_others_is_not_cancelled_by_our_errors():
    run = Execution('{ a: shared { name } b: required(name: "b") { fails } }')
    await run.turns()
    await run.open("b")
    await run.open("fails b")
    assert (await run.answer()).data is None
    assert not run.context.gates["future"].cancelled()


async def test_an_error_that_comes_too_late_is_seen_by_nobody(caplog):
    run = Execution('{ a: shared { name } b: required(name: "b") { fails } }')
    await run.turns()
    await run.open("b", "fails b")
    await run.answer()
    run.context.gates["future"].set_exception(ValueError("too late"))
    await run.turns()
    del run
    gc.collect()
    assert not caplog.records


async def test_two_that_fail_at_once_are_one_error(caplog):
    run = Execution('{ a: required(name: "a") { fails b: fails } }')
    await run.turns()
    await run.open("a")
    await run.open("fails a")
    assert len((await run.answer()).errors) == 1
    del run
    gc.collect()
    assert not caplog.records


def test_what_needs_not_be_awaited_is_answered_at_once():
    assert ENGINE.prepare("{ here { quick { name } } }").execute({}, Context()).data == {
        "here": {"quick": {"name": "hq"}}
    }
