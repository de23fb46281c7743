"""What is asked at the same time, and in which loads it goes."""

import asyncio
import time
from itertools import chain

import asyncpg
import pytest

from graphql_api.domain import deadline, place
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.coalescing import GATHERED_KEYS, GATHERED_REQUESTS, MAX_KEYS, RequestCoalescer
from graphql_api.storage.pool import ConnectionPool

FULL = MAX_KEYS


class Loads:
    """Loads that begin at once, are noted, and end when they are told to."""

    def __init__(self, database, late_seconds, owner=lambda key: key // 10):  # as if 10 to 19 were changes of one user
        self.begun, self._ends, self.error = [], [], None
        self.slow = set()
        self.coalescing = RequestCoalescer(
            database,
            self._load,
            owner=owner,
            avoids=self.slow.intersection,
            late_seconds=late_seconds,
        )

    async def _load(self, keys):
        self.begun.append(keys)
        self._ends.append(asyncio.Event())
        await self._ends[-1].wait()
        if self.error:
            raise self.error
        return {key: -key for key in keys}

    async def ask(self, *keys):
        """Ask for these keys; what is due to begin has begun then."""
        asking = asyncio.ensure_future(self.coalescing.load(keys))
        await self.settle()
        return asking

    async def end(self, number):
        self._ends[number].set()
        await self.settle()

    async def settle(self):
        for _ in range(10):
            await asyncio.sleep(0)


NEVER_LATE = 3600


@pytest.fixture
async def loads(database_url, request):
    async with ConnectionPool.open(database_url) as opened:
        await opened.connections.wait_connected()
        yield Loads(opened, getattr(request, "param", NEVER_LATE))


async def test_who_asks_during_a_load_goes_with_the_next(loads):
    first, *others = [await loads.ask(number) for number in range(5)]
    assert loads.begun == [[0]]
    await loads.end(0)
    assert await first == {0: 0}
    assert loads.begun == [[0], [1, 2, 3, 4]]
    await loads.end(1)
    assert await asyncio.gather(*others) == [{1: -1, 2: -2, 3: -3, 4: -4}] * 4


async def test_those_who_ask_in_the_same_turn_of_the_loop_go_together(loads):
    asking = asyncio.gather(*(loads.coalescing.load([number]) for number in range(3)))
    await loads.settle()
    assert loads.begun == [[0, 1, 2]]
    await loads.end(0)
    assert await asking == [{0: 0, 1: -1, 2: -2}] * 3


@pytest.fixture
async def reads(database_url, request):
    async with ConnectionPool.open(database_url) as opened:
        await opened.connections.wait_connected()
        yield Loads(opened, getattr(request, "param", NEVER_LATE), owner=None)


async def answer(reads, clients):
    """Answer this many clients of one load, who may ask again from now on."""
    asking = [reads.coalescing.load([-number]) for number in range(1, clients + 1)]
    await reads.settle()
    reads._ends[-1].set()
    await asyncio.gather(*asking)


async def turns_until_begun(reads):
    begun, turns = len(reads.begun), 0
    while len(reads.begun) == begun:
        await asyncio.sleep(0)
        turns += 1
    return turns


@pytest.mark.parametrize("clients", [0, 1])
async def test_a_read_waits_for_nobody_if_no_other_client_was_answered_just_now(reads, clients):
    if clients:
        await answer(reads, clients)
    asking = reads.coalescing.load([0])
    assert await turns_until_begun(reads) <= 2, "one until its task runs, and one until the load's does"
    reads._ends[-1].set()
    await asking


@pytest.mark.parametrize("reads", [0.01], indirect=True)
async def test_a_read_waits_for_nobody_who_was_answered_some_milliseconds_ago(reads):
    await answer(reads, 3)
    await asyncio.sleep(0.003)
    asking = reads.coalescing.load([0])
    assert await turns_until_begun(reads) <= 2
    reads._ends[-1].set()
    await asking


async def test_a_small_load_of_reads_waits_for_the_clients_that_were_answered_just_now(reads):
    await answer(reads, 5)
    asking = []
    for number in range(5):
        assert len(reads.begun) == 1
        asking.append(reads.coalescing.load([number]))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert reads.begun[1] == [0, 1, 2, 3, 4]
    await reads.end(1)
    assert await asyncio.gather(*asking) == [{number: -number for number in range(5)}] * 5


async def test_a_load_of_reads_begins_after_two_turns_without_a_request(reads):
    await answer(reads, 5)
    asking = []
    for number in range(3):
        asking.append(reads.coalescing.load([number]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # one turn without a request
        assert len(reads.begun) == 1
    assert await turns_until_begun(reads) == 1
    assert reads.begun[1] == [0, 1, 2]
    await reads.end(1)
    await asyncio.gather(*asking)


async def test_a_load_of_reads_does_not_wait_for_clients_that_do_not_ask_again(reads):
    await answer(reads, 5)
    asking = reads.coalescing.load([0])
    await reads.settle()
    assert reads.begun[1:] == [[0]]
    await reads.end(1)
    await asking


@pytest.mark.parametrize(
    ("keys", "requests"), [(1, GATHERED_REQUESTS), (10, -(-GATHERED_KEYS // 10)), (GATHERED_KEYS, 1)]
)
async def test_a_load_of_reads_waits_for_no_more_than_a_few(reads, keys, requests):
    await answer(reads, 50)
    asking = []
    while len(reads.begun) == 1:
        assert len(asking) < requests + 2, "one in the turn that creates the task, one in that of its end"
        asking.append(reads.coalescing.load(range(keys * len(asking), keys * (len(asking) + 1))))
        await asyncio.sleep(0)
    assert len(reads.begun[1]) >= requests * keys
    await reads.end(1)
    await asyncio.gather(*asking)


@pytest.mark.parametrize("reads", [0.01], indirect=True)
async def test_a_load_of_reads_waits_for_few_turns_of_the_loop_if_they_take_long(reads):
    await answer(reads, 50)
    asking = []
    while len(reads.begun) == 1:
        assert len(asking) < 4
        asking.append(reads.coalescing.load([len(asking)]))
        time.sleep(0.003)  # noqa: ASYNC251 - the loop is busy with something else
        await asyncio.sleep(0)
    await reads.end(1)
    await asyncio.gather(*asking)


async def test_clients_that_ask_again_are_in_one_load_of_reads_with_those_who_waited(reads):
    async def client(number):
        await reads.coalescing.load([number])
        await asyncio.sleep(0)  # as long as it takes to ask again
        await reads.coalescing.load([number + 100])

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    await reads.settle()
    clients += [asyncio.create_task(client(number)) for number in range(4, 8)]
    await reads.settle()
    await reads.end(0)
    assert [sorted(load) for load in reads.begun] == [[0, 1, 2, 3], [4, 5, 6, 7, 100, 101, 102, 103]]
    await reads.end(1)
    await reads.end(2)
    await asyncio.gather(*clients)


async def test_the_next_load_begins_before_the_last_one_is_answered(loads):
    async def begun_once_answered():
        await loads.coalescing.load([0])
        return len(loads.begun)

    first = asyncio.create_task(begun_once_answered())
    await loads.settle()
    second = await loads.ask(1)
    await loads.end(0)
    assert await first == 2
    await loads.end(1)
    assert await second == {1: -1}


async def test_a_key_is_loaded_once_for_all_who_ask_for_it(loads):
    await loads.ask(0)
    asking = [await loads.ask(1, 2), await loads.ask(2, 3)]
    await loads.end(0)
    assert loads.begun[1] == [1, 2, 3]
    await loads.end(1)
    assert await asyncio.gather(*asking) == [{1: -1, 2: -2, 3: -3}] * 2


async def test_what_is_more_than_a_load_takes_goes_with_the_one_after(loads):
    keys = range(1, FULL + 1)
    asking = [await loads.ask(0), *[await loads.ask(*keys[at : at + 40]) for at in range(0, FULL, 40)]]
    late = await loads.ask(-1)
    await loads.end(0)
    assert loads.begun == [[0], [*keys]]
    await loads.end(1)
    assert loads.begun[2:] == [[-1]]
    await loads.end(2)
    assert {*chain(*await asyncio.gather(*asking, late))} == {-1, 0, *keys}


@pytest.mark.parametrize("loads", [0], indirect=True)
async def test_loads_that_take_long_hold_up_no_other_but_are_four_at_the_most(loads):
    asking = [await loads.ask(number) for number in range(6)]
    assert loads.begun == [[0], [1], [2], [3]]
    await loads.end(2)
    assert loads.begun[4:] == [[4, 5]]
    for number in (0, 1, 3, 4):
        await loads.end(number)
    assert [{*found} for found in await asyncio.gather(*asking)] == [{0}, {1}, {2}, {3}, {4, 5}, {4, 5}]


@pytest.mark.parametrize("loads", [0.01], indirect=True)
async def test_a_mutation_waits_until_its_deadline_and_what_shares_its_load_goes_on(loads):
    with deadline.until(asyncio.get_running_loop().time() + 0.05):
        mutations = [await loads.ask(1, 2), await loads.ask(3)]
    others = [await loads.ask(3, 4)]
    for each in mutations:
        with pytest.raises(UnavailableError, match="took too long"):
            await each
    for number in range(len(loads.begun)):
        await loads.end(number)
    assert (await others[0]).items() >= {3: -3, 4: -4}.items()


async def test_nothing_is_loaded_for_who_waits_no_longer(loads):
    first, gone = await loads.ask(0), await loads.ask(*range(1, 10))
    gone.cancel()
    late = [await loads.ask(-1), await loads.ask(-2)]
    await loads.end(0)
    assert loads.begun == [[0], [-1, -2]]
    await loads.end(1)
    assert await asyncio.gather(first, *late) == [{0: 0}, *[{-1: 1, -2: 2}] * 2]


async def test_each_caller_of_a_load_that_failed_gets_an_error_of_their_own(loads):
    """A traceback grows with each task that an error is raised in."""
    one = await loads.ask(0)
    others = [await loads.ask(number) for number in (1, 2, 3)]
    await loads.end(0)
    await one
    loads.error = UnavailableError("The database is away.")
    await loads.end(1)
    errors = await asyncio.gather(*others, return_exceptions=True)
    assert [str(error) for error in errors] == ["The database is away."] * 3
    assert len({id(error) for error in errors}) == 3


async def test_an_error_whose_class_takes_no_arguments_reaches_each_caller(loads):
    one = await loads.ask(0)
    others = [await loads.ask(1), await loads.ask(1)]
    await loads.end(0)
    await one
    loads.error = UnchangedError()
    await loads.end(1)
    errors = await asyncio.gather(*others, return_exceptions=True)
    assert [(type(error), str(error)) for error in errors] == [(UnchangedError, str(loads.error))] * 2


async def test_those_who_asked_for_the_same_fail_together(loads):
    one = await loads.ask(0)
    others = [await loads.ask(1) for _ in range(3)]
    await loads.end(0)
    await one
    loads.error = KeyError("lost")
    await loads.end(1)
    errors = await asyncio.gather(*others, return_exceptions=True)
    assert [repr(error) for error in errors] == ["KeyError('lost')"] * 3
    assert loads.begun == [[0], [1]]


async def test_changes_of_a_user_wait_for_a_lock_together_and_hold_up_no_other_user(loads):
    await loads.ask(0)
    first, second, other = [await loads.ask(key) for key in (10, 11, 20)]
    await loads.end(0)
    loads.error = asyncpg.LockNotAvailableError()
    await loads.end(1)
    assert loads.begun[1:] == [[10, 11, 20], [10, 11], [20]]
    await loads.end(2)
    loads.error = None
    await loads.end(3)
    for each in (first, second):
        with pytest.raises(asyncpg.LockNotAvailableError):
            await each
    assert await other == {20: -20}


async def test_changes_of_one_user_that_wait_for_a_lock_are_not_tried_again(loads):
    await loads.ask(0)
    changes = [await loads.ask(key) for key in (10, 11)]
    await loads.end(0)
    loads.error = asyncpg.LockNotAvailableError()
    await loads.end(1)
    assert all(isinstance(each.exception(), asyncpg.LockNotAvailableError) for each in changes)
    assert loads.begun == [[0], [10, 11]]


async def test_a_user_who_became_slow_is_left_out_of_the_next_load(loads):
    await loads.ask(0)
    slow, other = await loads.ask(10), await loads.ask(20)
    loads.slow.add(1)
    await loads.end(0)
    with pytest.raises(ConflictError):
        await slow
    await loads.end(1)
    assert await other == {20: -20}
    assert loads.begun == [[0], [20]]


async def test_a_load_gives_up_no_place_of_the_request_that_started_it(database_url):
    given_up = []

    async def load(keys):
        place.give_up()
        return dict.fromkeys(keys)

    async with ConnectionPool.open(database_url) as pool:
        await pool.connections.wait_connected()
        place.release.set(lambda: lambda: given_up.append(True))
        await RequestCoalescer(pool, load).load([1])
    assert given_up == []
