"""Each endpoint gets every entry at least once and in order, whatever receivers do and whoever is killed."""

import asyncio
import base64
import json
import os
import random
import re
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import pairwise

import pytest
from standardwebhooks import Webhook

from graphql_api.deliveries import delivering, sending
from graphql_api.deliveries.delivering import SCHEDULE, DeliveryTiming
from graphql_api.domain.errors import BadInputError
from graphql_api.domain.filter import FeedPosition
from graphql_api.storage.endpoints import Endpoints
from graphql_api.storage.feed import Feed
from tests.deliveries import conftest as receivers
from tests.deliveries.conftest import KEY, SECRET, Receiver, answers
from tests.until import until

RECORD = """
  insert into customer_gateway_token_events
    (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
  select $1, version, 'user-1', 'STRIPE', 'cus_1', true, $4, 'somebody', '2026-11-30T12:00:00Z'
  from generate_series($2::int, $3::int) as version
"""
TOKEN = "00000000-0000-7000-8000-000000000001"
QUICK = DeliveryTiming(schedule=(0.01,) * 50, denied=0.01)


@pytest.fixture
def record(connection):
    """Records versions of a token."""

    async def record(first, last=None, action="UPDATED", token=TOKEN):
        await connection.execute(RECORD, token, first, last or first, action)

    return record


@pytest.fixture
def state(pool):
    """The endpoint as it is stored."""

    async def state(name="hook"):
        return next(each for each in await Endpoints(pool, "").states() if each.name == name)

    return state


async def test_a_delivery_is_what_standard_webhooks_asks_for(receiver, delivering_to, record):
    new_key = bytes(24)
    delivery = await delivering_to(receiver, keys=(KEY, new_key))
    await record(5, action="DEACTIVATED")
    assert await delivery.once() == ""
    [(headers, body)] = receiver.requests
    assert json.loads(body) == {
        "type": "customer_gateway_token.deactivated",
        "timestamp": "2026-11-30T12:00:00.000000+00:00",
        "data": {
            "__typename": "CustomerGatewayToken",
            "id": TOKEN,
            "version": 5,
            "gateway": "STRIPE",
            "isActive": True,
        },
    }
    assert (headers["webhook-id"], headers["content-type"]) == (f"evt_{TOKEN}_5", "application/json")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    for key in (KEY, new_key):
        Webhook(f"whsec_{base64.b64encode(key).decode()}").verify(body, headers)


@pytest.mark.parametrize("action", ["DELETED", "ERASED"])
async def test_a_token_that_is_no_more_is_not_active(receiver, delivering_to, record, action):
    delivery = await delivering_to(receiver)
    await record(5, action=action)
    assert await delivery.once() == ""
    assert [json.loads(body)["data"]["isActive"] for _, body in receiver.requests] == [False]


async def test_a_new_endpoint_begins_with_what_comes(receiver, delivering_to, record):
    await record(1, 3)
    delivery = await delivering_to(receiver)
    assert await delivery.once() == ""
    await record(4, 5)
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [4, 5]


async def test_only_the_wanted_actions_are_delivered(receiver, delivering_to, record, state):
    delivery = await delivering_to(receiver, actions=["DEACTIVATED"])
    await record(1, 150)
    await record(151, action="DEACTIVATED")
    await record(152, 300)
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [151]
    assert (await state()).position > 250  # the next process need not read them again


HOSTILE = [
    receivers.never,
    receivers.endlessly,
    receivers.closing_early,
    receivers.with_nonsense,
    receivers.with_hints_for_ever,
    answers(500),
    answers(302, "Location: /elsewhere"),
    answers(404),
    answers(429, "Retry-After: 0"),
    answers(503, "Retry-After: soon"),
]


@pytest.mark.parametrize("seed", range(2))
async def test_every_entry_arrives_in_order_from_any_of_several_processes(delivering_to, record, monkeypatch, seed):
    """They are killed at any moment, and receivers are slow, endless, rude and broken."""
    chance = random.Random(seed)
    timing = replace(QUICK, lease=0.5, answer=0.1, read=0.05)
    async with Receiver().listening() as receiver:
        receiver.script = [chance.choice([*HOSTILE, None, None, None]) for _ in range(40)]
        await delivering_to(receiver)
        running = [asyncio.create_task((await delivering_to(receiver, timing=timing)).run()) for _ in range(3)]
        for version in range(1, 31):
            await record(version)
            await asyncio.sleep(chance.random() * 0.03)
            if chance.random() < 0.2:  # the process is gone without a word
                victim = running.pop(chance.randrange(3))
                with monkeypatch.context() as gone:
                    gone.setattr(Endpoints, "release", _nothing)
                    victim.cancel()
                    with suppress(asyncio.CancelledError):
                        await victim
                running.append(asyncio.create_task((await delivering_to(receiver, timing=timing)).run()))
        await until(lambda: len(receiver.events) == 30, "all is delivered")
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert [version for _, version in receiver.events] == list(range(1, 31))
    versions = [body["data"]["version"] for body in receiver.bodies]
    assert all(later >= earlier - 1 for earlier, later in pairwise(versions))
    assert {headers[":path"] for headers, _ in receiver.requests} == {"/events"}


async def _nothing(*_):
    pass


@pytest.mark.parametrize("answer", [receivers.endlessly, answers(204), answers(299)])
async def test_what_comes_after_a_success_does_not_matter(receiver, delivering_to, record, state, answer):
    delivery = await delivering_to(receiver)
    receiver.script = [answer]
    await record(1, 2)
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [1, 2]
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (receivers.never, "did not answer within 0.1 s"),
        (receivers.closing_early, "did not answer: the connection was closed without a valid answer"),
        (answers(301, "Location: /elsewhere"), "answered 301"),
        (answers(500), "answered 500"),
    ],
)
async def test_what_is_not_taken_stays_and_says_why(receiver, delivering_to, record, state, answer, error):
    delivery = await delivering_to(receiver, timing=DeliveryTiming(answer=0.1))
    before = (await state()).position
    receiver.default = answer
    await record(1, 2)
    assert await delivery.once() == f"it {error}"
    now = await state()
    assert (now.position, now.attempts, now.last_error) == (before, 1, error)
    assert now.failing_since is not None
    receiver.default = None
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [1, 2]
    assert (await state())[2:] == (0, None, None, None, None, None)


async def test_attempts_follow_the_schedule_and_end_with_the_endpoint_disabled(
    receiver, delivering_to, record, state, connection
):
    delivery = await delivering_to(receiver)
    receiver.default = answers(500)
    await record(1, 2)
    for attempt, seconds in enumerate(SCHEDULE, 1):
        await delivery.once()
        now = await state()
        assert (now.attempts, now.disabled_at) == (attempt, None)
        wait = (now.next_attempt_at - datetime.now(UTC)).total_seconds()
        assert seconds - 2 < wait < seconds * 1.1 + 1
        assert (await delivery.step()).is_denied  # it is not time yet
    assert "it is disabled, since it answered 500" in await delivery.once()
    assert (await state()).disabled_at is not None
    assert len(receiver.requests) == len(SCHEDULE) + 1 == 10
    receiver.default = None
    assert "enable it with --resume hook" in await delivery.once()
    assert len(receiver.requests) == 10


async def test_a_receiver_that_is_gone_gets_nothing_until_it_is_resumed(pool, receiver, delivering_to, record, state):
    delivery = await delivering_to(receiver)
    receiver.script = [answers(410)]
    await record(1, 3)
    assert "it answered 410" in await delivery.once()
    assert "disabled" in await delivery.once()
    assert len(receiver.requests) == 1
    await delivering.resume(pool, "hook")
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [1, 2, 3]


async def test_an_endpoint_is_resumed_behind_what_it_does_not_take_or_anywhere(
    pool, receiver, delivering_to, record, state
):
    delivery = await delivering_to(receiver)
    start = await Feed(pool).now()
    receiver.script = [answers(410)]
    await record(1, 3)
    await delivery.once()
    left_out = await delivering.resume(pool, "hook", skip=True)
    assert left_out == receiver.requests[0][0]["webhook-id"]
    with pytest.raises(BadInputError, match="has not failed"):  # an entry that was never sent must not be lost
        await delivering.resume(pool, "hook", skip=True)
    await delivery.once()
    assert [body["data"]["version"] for body in receiver.bodies] == [1, 2, 3]
    await delivering.resume(pool, "hook", start=start)
    await delivery.once()
    assert [body["data"]["version"] for body in receiver.bodies] == [1, 2, 3, 1, 2, 3]
    with pytest.raises(BadInputError, match=r"no endpoint 'other': there are hook\.$"):
        await delivering.resume(pool, "other")
    with pytest.raises(BadInputError, match="does not belong to this database"):
        await delivering.resume(pool, "hook", start=FeedPosition(start.timeline, 10**9))


async def test_an_endpoint_skips_what_failed_though_it_does_not_want_all_entries(pool, receiver, delivering_to, record):
    delivery = await delivering_to(receiver, actions=["DEACTIVATED"])
    receiver.script = [answers(410)]
    await record(1, 3)
    await record(4, 5, action="DEACTIVATED")
    await delivery.once()
    assert await delivering.resume(pool, "hook", skip=True) == receiver.ids[0]
    assert await delivery.once() == ""
    assert [version for _, version in receiver.events] == [4, 5]


async def test_a_lease_from_before_the_clock_was_set_back_ends(receiver, delivering_to, record, connection, state):
    """Its process may be gone, and the time at which it ends may be years away."""
    delivery = await delivering_to(receiver)
    await record(1)
    lease = "update event_endpoints set leased_by = 'gone', leased_until = now() + $1 * interval '1 s'"
    await connection.execute(lease, 20)
    assert (await delivery.step()).is_denied
    await connection.execute(lease, 86_400)
    assert not (await state()).is_leased
    assert await delivery.once() == ""
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True), 120), ("1", 5)],
    ids=["seconds", "a date", "less than the schedule"],
)
async def test_a_receiver_says_how_long_to_wait(receiver, delivering_to, record, state, value, seconds):
    delivery = await delivering_to(receiver)
    value = value if isinstance(value, str) else value()
    receiver.default = answers(503, f"Retry-After: {value}")
    await record(1)
    assert await delivery.once() == "it answered 503"
    wait = ((await state()).next_attempt_at - datetime.now(UTC)).total_seconds()
    assert seconds - 2 <= wait < seconds + 2
    asked = len(receiver.requests)
    await delivery.once()
    assert len(receiver.requests) == asked  # not even by an operator's command


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 7 ", 7),
        ("-1", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2115 07:28:00 GMT", 86_400),
    ],
)
def test_how_long_a_receiver_asks_to_wait(value, seconds):
    assert sending._retry_after(value) == seconds


async def test_a_backlog_that_waits_holds_nothing_of_an_erased_person(receiver, delivering_to, graph, empty_database):
    """What is sent is made when it is sent."""
    async with delivering.ConnectionPool.open(empty_database) as pool:
        stop = asyncio.Event()
        endpoint = sending.Endpoint("hook", receiver.url, [KEY])
        opens = partial(receivers.opens_sender, allow_private=False)
        opened = delivering.deliveries(pool, [endpoint], actions=(), open_sender=opens, stop=stop)
        async with opened as [delivery]:
            receiver.default = answers(500)
            await graph.saved("user-of-flesh", "STRIPE", "cus_flesh", description="a note")
            await delivery.once()
            await graph.erase("user-of-flesh")
            receiver.default = None
            assert await delivery.once() == ""
    assert [body["type"].rpartition(".")[2] for body in receiver.bodies] == ["created", "created", "erased"]
    for headers, body in receiver.requests:
        assert b"flesh" not in body + repr(headers).encode()


async def test_the_data_of_an_event_is_a_representation_of_its_token(receiver, delivering_to, graph):
    delivery = await delivering_to(receiver)
    kept, gone = await graph.saved("u1", "STRIPE", "cus_1"), await graph.saved("u2", "STRIPE", "cus_2")
    await graph.delete(gone)
    assert await delivery.once() == ""
    data = [body["data"] for body in receiver.bodies]
    assert [list(each)[:2] for each in data] == [["__typename", "id"]] * 3
    assert await graph.entities(data) == [kept, None, None]


async def test_one_process_at_a_time_delivers_to_an_endpoint(receiver, delivering_to, record):
    release = asyncio.Event()

    async def when_released(writer):
        await release.wait()
        writer.write(receivers.OK)

    one, other = await delivering_to(receiver), await delivering_to(receiver)
    receiver.script = [when_released]
    await record(1)
    sending_one = asyncio.create_task(one.once())
    await until(lambda: receiver.requests, "the first process sends")
    assert (await other.step(early=True)).is_denied
    waiting = asyncio.create_task(other.once())
    release.set()
    assert await sending_one == await waiting == ""
    assert len(receiver.requests) == 1


async def test_an_endpoint_that_fails_holds_up_no_other(receiver, delivering_to, record):
    async with Receiver().listening() as broken:
        broken.default = answers(500)
        deliveries = [await delivering_to(broken, name="broken"), await delivering_to(receiver, name="well")]
        await record(1)
        assert await asyncio.gather(*(each.once() for each in deliveries)) == ["it answered 500", ""]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["93.184.216.34"]], ids=str)
async def test_nothing_is_sent_to_private_addresses_nor_without_tls(
    delivering_to, record, monkeypatch, scheme, addresses
):
    """A name is looked up for each request, and connected is to what was looked up."""

    async def looked_up(self, host, port, **_):
        assert host == "hook.example"
        return [(0, 0, 0, "", (address, 0)) for address in addresses]

    async def connected(self, address, *_):
        return sending.DeliveryOutcome(f"connected to {address}")

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", looked_up)
    monkeypatch.setattr(sending.HTTPSender, "_post", connected)
    await record(1)
    for allow_private in (False, True):
        endpoint = sending.Endpoint("hook", f"{scheme}://hook.example/events", [KEY])
        async with sending.HTTPSender.open(endpoint, allow_private=allow_private) as sender:
            outcome = await sender.send(
                {
                    "action": "CREATED",
                    "at": datetime.now(UTC),
                    "token_id": "t",
                    "timelines": 1,
                    "version": 1,
                    "gateway": "G",
                    "is_active": True,
                }
            )
        allowed = allow_private or (scheme == "https" and "10.0.0.1" not in addresses)
        assert (outcome.error == f"connected to {addresses[-1]}" or "connected" in outcome.error) == allowed


# --- by the command line


@pytest.fixture
def deliver(url, receiver, tmp_path):
    """Starts `gateway-tokens deliver` in a process of its own."""

    async def start(*options, **environment):
        names = ("HOME", "LANG", "PATH")
        settings = {
            "DATABASE_URL": url,
            "EVENT_WEBHOOKS": f"hook={receiver.url}",
            "EVENT_WEBHOOK_SECRETS": f"hook:{SECRET}",
            **{name: os.environ[name] for name in names if name in os.environ},
            **environment,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "graphql_api",
            "deliver",
            *options,
            env={name: value for name, value in settings.items() if value},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    return start


async def ended(process):
    printed, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, printed.decode(), errors.decode()


async def test_the_command_delivers_survives_being_killed_and_ends_when_told(
    deliver, record, receiver, state, connection
):
    process = await deliver()
    try:
        await until(lambda: connection.fetchval("select count(*) from event_endpoints"), "the endpoint is known")
        await record(1, 5)
        await until(lambda: len(receiver.events) == 5, "all is delivered")
        receiver.script = [receivers.never]
        await record(6)
        await until(lambda: len(receiver.events) == 6, "the last one is under way")
        process.kill()
        await process.wait()
        await connection.execute("update event_endpoints set leased_until = now()")  # as in half a minute
        process = await deliver()
        await until(lambda: receiver.ids[-2:] == [f"evt_{TOKEN}_6"] * 2, "the last one is delivered again")
        await record(7)
        await until(lambda: len(receiver.events) == 7, "the next one is delivered")
        process.terminate()
        assert (await ended(process))[0] == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert [version for _, version in receiver.events] == list(range(1, 8))
    assert not (await state()).is_leased


@pytest.mark.slow
async def test_the_command_tells_who_stays_behind_and_enables_them(deliver, record, receiver):
    assert (await ended(await deliver("--once")))[0] == 0
    await record(1)
    receiver.script = [answers(410)]
    status, _, errors = await ended(await deliver("--once"))
    assert status == 1
    assert "gateway-tokens: hook stays behind: it is disabled, since it answered 410" in errors
    assert "Traceback" not in errors
    status, printed, _ = await ended(await deliver("--resume", "hook", "--skip"))
    assert status == 0
    assert re.fullmatch(r"hook leaves out evt_[0-9a-f-]{36}_1\.\nhook is enabled\.\n", printed)
    assert (await ended(await deliver("--once")))[0] == 0
    assert len(receiver.requests) == 1


async def test_the_command_names_the_one_that_a_new_database_needs_first(deliver, new_database):
    status, _, errors = await ended(await deliver("--resume", "hook", DATABASE_URL=await new_database()))
    assert status == 1
    assert "The database has no tables yet: run `gateway-tokens migrate`" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        (["--skip"], {}, "--from and --skip need --resume NAME"),
        (["--resume", "hook", "--skip", "--from", "x"], {}, "can be combined with --from or --skip"),
        (["--resume", "other"], {}, "There is no endpoint 'other': `deliver` has not run on this database yet."),
        (["--resume", "hook", "--from", "x"], {}, "--from: 'x' is not a cursor"),
        ([], {"EVENT_WEBHOOKS": "", "EVENT_WEBHOOK_SECRETS": ""}, "EVENT_WEBHOOKS is not set"),
        ([], {"EVENT_WEBHOOK_SECRETS": ""}, "EVENT_WEBHOOK_SECRETS must have a secret for each endpoint"),
    ],
)
async def test_the_command_says_how_to_call_it(deliver, options, environment, says):
    status, _, errors = await ended(await deliver(*options, **environment))
    assert status == 2
    assert says in errors
