"""The database goes away and comes back, while 150 reads and 20 saves a second go on.

What is acknowledged is stored, and everybody is answered. Nobody is refused at once, and nobody at all if the outage is
short or over: only what fails while the machine does something else is excused.
"""

import asyncio
import signal

import asyncpg
import pytest

from tests.faults.conftest import LONG
from tests.faults.http import Http
from tests.faults.load import Load
from tests.faults.locked_users import MUTATIONS, asking_for, asking_to_save, locking
from tests.faults.service import serving

PATIENCE = 2.5  # seconds that a request waits for a connection
SHORTEST_WAIT = 0.9  # seconds, in line before the requests that wait for a connection
# An answer takes at most 3 s; a busy machine adds to that.
LATEST_ANSWER = 10
OUTAGE = 30 if LONG else 4


class Run:
    """What was seen of one fault."""

    def __init__(self, load):
        self.load = load
        self.now = asyncio.get_running_loop().time
        self.began = self.healed = 0.0

    @property
    def away(self):
        return self.healed - self.began


@pytest.fixture
async def during(service, postgres, measured):
    """Runs a fault under load, notes its figures and compares what was acknowledged with what is stored."""

    async def run(fault, *, answers=None):
        load = Load([service.graphql])
        async with load.running():
            seen = Run(load)
            await asyncio.sleep(1)
            seen.began = seen.now()
            await fault()
            await (answers or postgres.answers)()
            seen.healed = seen.now()
            await asyncio.sleep(2)
        asked, failed = len(load.answers), load.failed()
        measured("away for", f"{seen.away:.2f} s")
        measured("failed", f"{len(failed)} of {asked} {sorted({each.error for each in failed})}")
        measured("slowest answer", f"{load.slowest():.2f} s")
        late = max((each.began + each.seconds - seen.healed for each in failed), default=0)
        measured("last failure after the return", f"{max(0, late):.2f} s")
        assert await load.differences(postgres.url) == []
        assert {each.error for each in failed} <= {"UNAVAILABLE"}
        assert load.slowest() < LATEST_ANSWER
        assert all(each.seconds > SHORTEST_WAIT for each in failed)
        assert load.unexcused(after=0 if seen.away < PATIENCE - 0.5 else seen.healed + 1) == []
        return seen

    return run


async def test_no_request_notices_that_all_backends_were_terminated(during, postgres):
    await during(postgres.terminate_backends)


async def test_requests_wait_for_a_fast_restart(during, postgres):
    async def restart():
        await postgres.stop()
        await postgres.start()

    await during(restart)


async def test_requests_wait_while_postgresql_recovers_from_a_killed_backend(during, postgres):
    async def kill():
        postgres.kill_a_backend()
        await asyncio.sleep(0.05)

    await during(kill)


async def test_few_requests_fail_while_the_postmaster_is_down_for_two_seconds(during, postgres):
    async def be_down():
        await postgres.kill()
        await asyncio.sleep(2)
        await postgres.start()

    run = await during(be_down)
    # However long the outage was, requests sent after this could have been answered.
    unexcused = run.load.unexcused(after=run.healed - PATIENCE + 0.5)
    assert len(unexcused) <= len(run.load.answers) * 0.01


async def test_every_request_is_answered_while_postgresql_is_stopped(during, postgres):
    async def stop():
        postgres.signal_all(signal.SIGSTOP)
        await asyncio.sleep(OUTAGE)
        postgres.signal_all(signal.SIGCONT)

    run = await during(stop)
    assert run.load.failed()


async def test_every_request_is_answered_while_the_link_is_stalled(during, proxy, postgres, measured):
    async def stall():
        proxy.attempts.clear()
        proxy.stall()
        await asyncio.sleep(OUTAGE)
        measured("most attempts in a second", most_in_a_second(proxy.attempts))
        proxy.resume()

    run = await during(stall)
    assert run.load.failed()
    assert most_in_a_second(proxy.attempts) <= 20


async def test_requests_wait_while_connections_are_refused(during, proxy):
    async def refuse():
        await proxy.refuse()
        await asyncio.sleep(1.5)
        await proxy.accept()

    await during(refuse)


async def test_waiting_for_a_place_and_for_a_connection_share_one_time_limit(service, proxy, measured):
    async with Http().open() as http:

        async def seconds_of(query):
            began = asyncio.get_running_loop().time()
            _, answer = await http.post(service.graphql, {"query": query})
            assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
            return asyncio.get_running_loop().time() - began

        await proxy.refuse()
        alone = await seconds_of('{ customerGatewayToken(id: "00000000-0000-0000-0000-000000000000") { id } }')
        asked = []
        for number in range(12):
            erasure = f'mutation {{ eraseUserGatewayTokens(userId: "away-{number}") {{ erased {{ gateway }} }} }}'
            listing = f"{{ customerGatewayTokens(first: {number + 1}) {{ totalCount }} }}"
            asked += [asyncio.create_task(seconds_of(query)) for query in (erasure, listing)]
            await asyncio.sleep(0.3)
        slowest = max(await asyncio.gather(*asked))
        await proxy.accept()
        assert await service.until(200, http=http) < 5
    measured("alone, in line", f"{alone:.2f}, {slowest:.2f} s")
    assert slowest < 1.5 * alone


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_batch_waits_for_the_database_once(service, proxy, measured, is_refused):
    """Connections are refused, or nothing comes through them."""
    erasures = [f'mutation {{ eraseUserGatewayTokens(userId: "{n}") {{ userErrors {{ code }} }} }}' for n in range(4)]
    listings = [f"{{ customerGatewayTokens(first: {n + 1}) {{ totalCount }} }}" for n in range(4)]
    pairs = list(zip(erasures, listings, strict=True))
    batches = {
        "one mutation": erasures[:1],
        "one query": listings[:1],
        "four mutations": erasures,
        "mutations and queries": [query for pair in pairs for query in pair],
        "queries and mutations": [query for pair in pairs for query in reversed(pair)],
    }
    seconds, messages = {}, {}
    async with Http().open() as http:
        assert await service.until(200, http=http) < 5
        for name, queries in batches.items():
            if is_refused:
                await proxy.refuse()
            else:
                proxy.stall()
            began = asyncio.get_running_loop().time()
            _, answers = await http.post(service.graphql, [{"query": query} for query in queries])
            seconds[name] = asyncio.get_running_loop().time() - began
            messages[name] = [answer["errors"][0]["message"] for answer in answers]
            if is_refused:
                await proxy.accept()
            else:
                proxy.resume()
            assert await service.until(200, http=http) < 5
    took = ", ".join(f"{name} {each:.2f} s" for name, each in seconds.items())
    measured("refused" if is_refused else "stalled", took)
    alone = max(seconds["one mutation"], seconds["one query"])
    assert max(seconds.values()) < 1.5 * alone
    assert "may already have been made" in messages["four mutations"][0]
    for message in messages["four mutations"][1:]:
        assert "The operation was not run." in message


async def test_few_attempts_are_made_while_every_connection_is_reset(during, proxy, measured):
    async def slam():
        proxy.attempts.clear()
        proxy.slams = True
        proxy.reset()
        await asyncio.sleep(2)
        proxy.slams = False
        measured("most attempts in a second", most_in_a_second(proxy.attempts))

    proxy.cancellations.clear()
    await during(slam)
    assert 0 < most_in_a_second(proxy.attempts) <= 20
    assert len(proxy.cancellations) <= 10, "one for each connection of the pool"


async def test_50_ms_of_latency_fail_nothing(during, proxy):
    async def delay():
        proxy.delay = 0.025
        await asyncio.sleep(3)
        proxy.delay = 0

    run = await during(delay)
    assert run.load.unexcused() == []


async def test_readiness_follows_the_database(service, postgres, proxy, measured):
    async with Http().open() as http:
        for cause, begin, end in (("refused", proxy.refuse, proxy.accept), ("stalled", stalls(proxy), resumes(proxy))):
            assert await service.until(200, http=http) < 5
            await begin()
            noticed = await service.until(503, http=http)
            assert (await http.get(f"{service.url}/healthz"))[0] == 200
            await asyncio.sleep(2)
            await end()
            recovered = await service.until(200, http=http)
            measured(cause, f"not ready after {noticed:.2f} s, ready again after {recovered:.2f} s")
            assert noticed < 5
            assert recovered < 5


@pytest.mark.parametrize("script", [b"commit", b"UPDATED"])
async def test_a_save_whose_answer_from_the_database_was_lost_is_made_once(service, postgres, proxy, script):
    load = Load([service.graphql], reads=1, saves=1, users=1)
    async with load.running():
        await asyncio.sleep(0.1)
        proxy.loses_answer_to = script
        await load._save(load.new_user() if script == b"commit" else load.users[0])
        assert proxy.loses_answer_to is None
    assert not load.failed()
    assert await load.differences(postgres.url) == []


READING = """mutation ($user: ID!) { saveCustomerGatewayToken(input: {
    userId: $user, gateway: "ADYEN", gatewayCustomerId: "new"}) { gatewayToken { user { gatewayTokens { id } } } } }"""


async def test_a_mutation_that_lost_a_connection_waits_for_another_to_read_its_answer_no_longer_than_is_left(
    service, postgres, proxy, measured
):
    """Connections are reset while it waits for a lock, and refused once it has changed what it should."""
    user, loop = "reading", asyncio.get_running_loop()
    connection, is_made = await asyncpg.connect(postgres.url), False

    def loses(statement):
        nonlocal is_made
        if b"commit" in statement:
            is_made = True
        elif is_made and b"gateway_tokens" in statement:
            refusing.append(asyncio.create_task(proxy.refuse()))
            return True
        return False

    refusing = []
    async with Http().open() as http:
        await http.post(service.graphql, asking_to_save(user))
        await proxy.refuse()
        began = loop.time()
        await http.post(service.graphql, {"query": "{ customerGatewayTokens(first: 7) { totalCount } }"})
        alone = loop.time() - began
        await proxy.accept()
        assert await service.until(200, http=http) < 5
        async with locking(connection, [user]):
            began = loop.time()
            asked = asyncio.create_task(http.post(service.graphql, {"query": READING, "variables": {"user": user}}))
            await asyncio.sleep(0.3)
            proxy.reset()
            await asyncio.sleep(1)
            proxy.loses = loses
        _, answer = await asked
        seconds = loop.time() - began
        proxy.loses = lambda _: False
        await asyncio.gather(*refusing)
        await proxy.accept()
        assert await service.until(200, http=http) < 5
    await connection.close()
    measured("a query alone, and the mutation", f"{alone:.2f}, {seconds:.2f} s")
    assert "The mutation itself has completed" in answer["errors"][0]["message"]
    assert seconds < 1.3 * alone


@pytest.fixture(scope="module")
async def patient_service(tmp_path_factory, postgres, proxy):
    """It does not end a statement within the time of a test."""
    patience = {"DATABASE_TIMEOUT": "30", "REQUEST_TIMEOUT": "60"}
    folder = tmp_path_factory.mktemp("service")
    async with serving(folder, DATABASE_URL=postgres.url_by(proxy.port), **patience) as service:
        yield service


@pytest.mark.parametrize("kind", MUTATIONS)
async def test_a_mutation_that_waits_for_a_lock_notices_that_its_connection_was_dropped_silently(
    patient_service, postgres, proxy, measured, kind
):
    user, loop = f"dropped-{kind}", asyncio.get_running_loop()
    connection = await asyncpg.connect(postgres.url)
    async with Http().open() as http:
        await http.post(patient_service.graphql, asking_to_save(user))
        async with locking(connection, [user]):
            asked = asyncio.create_task(http.post(patient_service.graphql, asking_for(kind, user)))
            await asyncio.sleep(1)
            proxy.forget()
            began = loop.time()
            status, answer = await asked
    await connection.close()
    measured(f"{kind}: answered after, within 3 s", f"{loop.time() - began:.2f} s")
    assert loop.time() - began < LATEST_ANSWER
    assert status == 200
    assert "may already have been made" in str(answer)


def stalls(proxy):
    async def stall():
        proxy.stall()

    return stall


def resumes(proxy):
    async def resume():
        proxy.resume()

    return resume


def most_in_a_second(times):
    return max((sum(first <= time < first + 1 for time in times) for first in times), default=0)


@pytest.mark.parametrize("is_array", [True, False])
async def test_mutations_whose_answers_cannot_be_read_are_answered_within_the_time_of_one(
    service, proxy, measured, is_array
):
    """Each change is made; then the connection is lost, as often as its answer is read."""
    is_made, loop = False, asyncio.get_running_loop()

    def loses(statement):
        nonlocal is_made
        is_made = b"commit" in statement or (is_made and b"ADYEN" not in statement)  # what a change reads first
        return is_made and b"unread-" in statement

    save = """saveCustomerGatewayToken(input: {userId: "unread-%s", gateway: "ADYEN", gatewayCustomerId: "unread-%s"}) {
        gatewayToken { user { gatewayTokens { id } } } }"""
    async with Http().open() as http:

        async def ask(users):
            fields = [save % (user, user) for user in users]
            queries = [f"mutation {{ {field} }}" for field in fields]
            if not is_array:
                queries = ["mutation {" + " ".join(f"m{n}: {field}" for n, field in enumerate(fields)) + "}"]
            began = loop.time()
            _, answers = await http.post(service.graphql, [{"query": query} for query in queries])
            return loop.time() - began, answers

        await ask([f"{is_array}-warm"])
        proxy.loses = loses
        alone, _ = await ask([f"{is_array}-alone"])
        seconds, answers = await ask([f"{is_array}-{n}" for n in range(4)])
        proxy.loses = lambda _: False
    measured("one, four", f"{alone:.2f}, {seconds:.2f} s")
    assert alone > 1
    assert seconds < 2 * alone
    messages = [error["message"] for answer in answers for error in answer["errors"]]
    assert any("The mutation itself has completed" in message for message in messages)


async def test_a_batch_reads_after_a_mutation_that_lost_each_connection(service, proxy):
    claim = 'mutation { claimGatewayCustomer(userId: "%s", gateway: "ADYEN") { userErrors { code } } }'
    listing = "{ customerGatewayTokens(first: 3) { totalCount } }"
    proxy.loses = lambda statement: b"losing" in statement
    async with Http().open() as http:
        queries = [claim % "losing", listing, listing]
        _, answers = await http.post(service.graphql, [{"query": query} for query in queries])
    proxy.loses = lambda _: False
    assert [answer.get("data") and "errors" not in answer for answer in answers] == [None, True, True]


async def test_queries_of_a_batch_whose_answers_are_lost_silently_take_as_long_as_one(service, proxy, measured):
    """The mutation before them loses nothing."""
    loop = asyncio.get_running_loop()
    claim = 'mutation { claimGatewayCustomer(userId: "fine-%s", gateway: "ADYEN") { userErrors { code } } }'
    users = '_entities(representations: [{__typename: "User", id: "losing-%s"}])'
    reading = f"{{ {users} {{ ... on User {{ gatewayTokens {{ id }} }} }} }}"
    async with Http().open() as http:

        async def ask(name, number):
            queries = [claim % name, *(reading % f"{name}-{each}" for each in range(number))]
            began = loop.time()
            _, answers = await http.post(service.graphql, [{"query": query} for query in queries])
            return loop.time() - began, answers

        await ask("warm", 1)
        proxy.silences = lambda statement: "answer" if b"losing-" in statement else None
        alone, _ = await ask("alone", 1)
        assert await service.until(200, http=http) < 5
        seconds, (claimed, *read) = await ask("several", 8)
        proxy.silences = lambda _: None
    measured("one query, eight", f"{alone:.2f}, {seconds:.2f} s")
    assert seconds < 2 * alone
    assert claimed == {"data": {"claimGatewayCustomer": {"userErrors": []}}}
    assert {answer["errors"][0]["extensions"]["code"] for answer in read} == {"UNAVAILABLE"}
