"""After a connection was lost, no mutation waits for long."""

import asyncio
from math import inf

import pytest

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError, UnchangedError

LONG = 60


@pytest.fixture
def mutation():
    """What a mutation with a minute left does: it begins at once, and runs until it is told to end."""

    async def run(doing, told):
        with deadline.until(asyncio.get_running_loop().time() + LONG):
            await doing(told)
            return deadline.seconds_left()

    async def start(doing):
        told = asyncio.Event()
        task = asyncio.create_task(run(doing, told))
        await asyncio.sleep(0)
        return task, told

    return start


async def wait(told):
    await told.wait()


async def work(told):
    with deadline.executing():
        await told.wait()
        assert deadline.seconds_left() > LONG / 2


async def lose(told):
    with deadline.executing():
        await told.wait()
        deadline.note_loss()


async def seconds_left(mutation):
    task, told = mutation
    told.set()
    return await task


async def test_one_that_waits_ends_soon_although_another_lost_its_connection(mutation):
    waiting = await mutation(wait)
    deadline.note_loss()
    assert await seconds_left(waiting) < 3


async def test_one_with_a_transaction_keeps_its_time_even_if_it_has_to_run_the_transaction_again(mutation):
    working = await mutation(work)
    deadline.note_loss()
    assert await seconds_left(working) > LONG / 2


async def test_one_whose_own_connection_was_lost_ends_soon(mutation):
    assert await seconds_left(await mutation(lose)) < 3


async def test_one_that_waits_again_after_a_transaction_ends_soon(mutation):
    async def work_and_wait(told):
        with deadline.executing():
            pass
        await told.wait()

    waiting = await mutation(work_and_wait)
    deadline.note_loss()
    assert await seconds_left(waiting) < 3


async def test_one_that_began_after_the_loss_has_its_time(mutation):
    deadline.note_loss()
    for doing in (wait, work):
        assert await seconds_left(await mutation(doing)) > LONG / 2


async def test_what_is_kept_to_the_deadline_is_given_up(mutation):
    async def wait_for_ever(_told):
        async with deadline.enforced():
            await asyncio.Event().wait()

    waiting, _ = await mutation(wait_for_ever)
    deadline.note_loss()
    with pytest.raises(UnavailableError, match="may already have been made"):
        await waiting


@pytest.mark.parametrize("loses", [True, False])
async def test_after_one_that_lost_its_connection_the_others_of_the_request_have_little_time(loses):
    request = deadline.RequestDeadline(asyncio.get_running_loop().time() + LONG)
    deadline.current.set(request)
    with deadline.for_mutation():
        if loses:
            deadline.note_loss()
    with deadline.for_mutation():
        assert (deadline.seconds_left() < 3) is loses


async def test_the_others_of_the_request_keep_their_time_if_another_request_lost_its_connection(mutation):
    deadline.current.set(deadline.RequestDeadline(asyncio.get_running_loop().time() + LONG))
    with deadline.for_mutation():
        losing, told = await mutation(lose)
        told.set()
        await losing
        assert deadline.seconds_left() < 3
    with deadline.for_mutation():
        assert deadline.seconds_left() > LONG / 2


async def test_after_one_that_was_given_up_for_a_loss_the_others_of_the_request_have_little_time(mutation):
    deadline.current.set(deadline.RequestDeadline(asyncio.get_running_loop().time() + LONG))

    async def be_given_up():
        with deadline.for_mutation():
            losing, told = await mutation(lose)
            told.set()
            await losing
            raise UnavailableError

    with pytest.raises(UnavailableError):
        await be_given_up()
    with deadline.for_mutation():
        assert deadline.seconds_left() < 3


@pytest.mark.parametrize("is_theirs", [True, False])
async def test_those_that_share_a_change_end_soon_only_if_its_connection_was_lost(mutation, is_theirs):
    shared = []

    async def share(told):
        shared.append(deadline.current.get())
        await told.wait()

    mutations = [await mutation(share) for _ in range(2)]
    deadline.current.set(deadline.Deadline(inf, shared))
    with deadline.executing():
        if is_theirs:
            deadline.note_loss()
        else:
            await seconds_left(await mutation(lose))
    assert [await seconds_left(each) < 3 for each in mutations] == [is_theirs, is_theirs]


async def test_what_its_answer_reads_ends_soon_after_a_mutation_that_lost_its_connection():
    now = asyncio.get_running_loop().time()
    request = deadline.RequestDeadline(now + LONG)
    deadline.current.set(request)
    with deadline.for_mutation():
        assert deadline.current.get() is not request
    assert deadline.seconds_left() == inf
    with deadline.for_mutation():
        deadline.note_loss()
    left = deadline.seconds_left()
    assert 0 < request.of_mutations - now < left < 3.5
    deadline.note_loss()
    assert left - 1 < deadline.seconds_left() <= left


async def test_after_what_its_answer_reads_lost_a_connection_the_others_of_the_request_have_little_time():
    now = asyncio.get_running_loop().time()
    request = deadline.RequestDeadline(now + LONG)
    deadline.current.set(request)
    deadline.note_loss()
    assert now < request.of_mutations < now + 2.5
    assert request.of_mutations - now < deadline.seconds_left() < 3.5
    with deadline.for_mutation():
        assert deadline.seconds_left() < 2.5


async def test_what_its_answer_reads_has_time_even_after_a_request_that_took_long():
    request = deadline.RequestDeadline(asyncio.get_running_loop().time() + LONG)
    request._earliest -= LONG / 2  # began then
    deadline.current.set(request)
    deadline.note_loss()
    assert 0.5 < deadline.seconds_left() < 1
    assert request.of_mutations < asyncio.get_running_loop().time() + 0.1


@pytest.mark.parametrize("may_have_changed", [True, False])
async def test_one_that_may_have_changed_something_does_not_end_as_unchanged(mutation, may_have_changed):
    async def be_refused(told):
        await told.wait()
        if may_have_changed:
            deadline.note_change()
        raise UnchangedError

    refused = await mutation(be_refused)
    with pytest.raises(UnavailableError) as raised:
        await seconds_left(refused)
    assert ("may already have been made" in str(raised.value)) is may_have_changed
