"""How keys are kept current: a key server that changes, fails and lies, and a file that changes."""

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from structlog.testing import capture_logs

from graphql_api.auth import Authenticator, InvalidTokenError
from graphql_api.auth.access_tokens import Requirements
from graphql_api.auth.keys import MAX_BYTES, FileKeys, KeyTiming, remote_keys, watched_file
from graphql_api.domain.caller import Caller
from graphql_api.domain.errors import UnavailableError
from tests.auth.issuer import bearer, es256, key_set, new_key
from tests.until import until

OLD, NEW = new_key("old"), new_key("new")
ALICE = Caller("user-1")


def by_server(server):
    return Authenticator.open(enabled=True, jwks_url=server.url)


@asynccontextmanager
async def by_impatient_server(server, **timing):
    async with remote_keys(server.url, KeyTiming(**timing)) as keys:
        yield Authenticator(keys, Requirements(None, None))


async def caller(authenticator, key):
    found = authenticator.caller(bearer(es256(key)))
    return found if isinstance(found, Caller) else await found


async def is_accepted(authenticator, key):
    try:
        return await caller(authenticator, key) == ALICE
    except InvalidTokenError:
        return False


async def until_accepted(authenticator, key):
    await until(lambda: is_accepted(authenticator, key), "the new key is accepted")


@pytest.fixture
async def authenticator(key_server):
    key_server.publish(OLD)
    async with by_server(key_server) as authenticator:
        yield authenticator


async def test_known_keys_are_fetched_once(key_server, authenticator):
    for _ in range(100):
        assert authenticator.caller(bearer(es256(OLD))) == ALICE

    assert key_server.fetches == 1


async def test_a_new_key_is_accepted_by_the_first_request_that_names_it(key_server, authenticator):
    for number in range(3):
        key = new_key(f"new-{number}")
        key_server.publish(OLD, key)

        assert await caller(authenticator, key) == ALICE
    assert key_server.fetches == 4


async def test_many_requests_with_a_new_key_wait_for_one_fetch(key_server, authenticator):
    key_server.publish(OLD, NEW)

    assert await asyncio.gather(*(caller(authenticator, NEW) for _ in range(50))) == [ALICE] * 50
    assert key_server.fetches == 2


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_thousand_unknown_keys_cost_one_fetch(key_server, authenticator, at_once):
    asked = (_refused(authenticator, _renamed(OLD, number)) for number in range(1000))

    if at_once:
        assert all(await asyncio.gather(*asked))
    else:
        assert all([await refused for refused in asked])
    assert key_server.fetches == 2


async def test_a_new_key_is_accepted_soon_after_a_thousand_unknown_ones(key_server, authenticator):
    for number in range(1000):
        assert await _refused(authenticator, _renamed(OLD, number))
    key_server.publish(OLD, NEW)

    await until_accepted(authenticator, NEW)
    assert key_server.fetches == 3


async def test_a_key_that_was_published_during_a_fetch_is_not_missed(key_server, authenticator):
    key_server.delay = 0.2
    fetching = asyncio.create_task(authenticator._keys.refresh())
    await until(lambda: key_server.fetches == 2, "the keys are fetched a second time")
    key_server.publish(OLD, NEW)

    assert await caller(authenticator, NEW) == ALICE
    await fetching


async def test_a_key_that_is_published_no_longer_is_gone_at_once(key_server, authenticator):
    text = bearer(es256(OLD))
    assert authenticator.caller(text) == ALICE
    key_server.publish(NEW)
    assert await caller(authenticator, NEW) == ALICE

    assert await _refused(authenticator, text)


async def test_keys_are_fetched_now_and_then(key_server):
    key_server.publish(OLD)
    async with by_impatient_server(key_server, refresh_seconds=0.05, retry_seconds=0.02) as authenticator:
        key_server.publish(NEW)
        await until(lambda: key_server.fetches >= 3, "the keys are fetched three times")

        assert authenticator.caller(bearer(es256(NEW))) == ALICE
        assert not await is_accepted(authenticator, OLD)


async def test_known_keys_go_on_working_while_the_key_server_is_down_for_an_hour(key_server):
    key_server.publish(OLD)
    async with remote_keys(key_server.url) as keys:
        await key_server.stop()
        now = monotonic()
        keys._clock = lambda: now
        for _ in range(3600 // 60):
            now += 60
            await keys.refresh()
            await keys.look_for("unknown")

        assert keys.ring is not None
        assert keys.ring.knows("old")
        await key_server.start()


async def test_the_log_says_once_that_the_key_server_is_down_and_once_that_it_is_back(key_server):
    key_server.publish(OLD)
    async with remote_keys(key_server.url) as keys:
        with capture_logs() as lines:
            for stop_or_start in (key_server.stop, key_server.start):
                await stop_or_start()
                for _ in range(3):
                    await keys.refresh()

    assert [(line["event"], line["reason"]) for line in lines] == [
        ("access token keys are not fetched", "connection refused"),
        ("access token keys are fetched again", None),
    ]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("200 OK", b""),
        ("200 OK", key_set()),
        ("200 OK", b"<html>"),
        ("200 OK", b'{"keys":'),
        ("200 OK", key_set({"kty": "oct", "kid": "old", "k": "AAAA"})),
        ("200 OK", b" " * MAX_BYTES + key_set(NEW)),
        ("500 Internal Server Error", key_set(NEW)),
        ("404 Not Found", key_set(NEW)),
        ("204 No Content", b""),
        ("302 Found\r\nLocation: /elsewhere", key_set(NEW)),
        ("no status", b""),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_wrong_answer_does_not_drop_good_keys(key_server, authenticator, status, answer):
    key_server.status, key_server.answer = status, answer

    assert not await is_accepted(authenticator, NEW)
    assert await caller(authenticator, OLD) == ALICE
    assert key_server.paths == [b"/keys", b"/keys"]


@pytest.mark.parametrize("slowly", [{"delay": 60}, {"pause": 0.02}])
async def test_an_answer_that_does_not_end_is_given_up(key_server, slowly):
    key_server.publish(OLD)
    async with by_impatient_server(key_server, fetch_timeout_seconds=0.5) as authenticator:
        vars(key_server).update(slowly)
        key_server.publish(OLD, NEW)

        assert not await is_accepted(authenticator, NEW)
        assert await caller(authenticator, OLD) == ALICE


async def test_known_callers_do_not_wait_while_keys_are_fetched(key_server, authenticator):
    key_server.delay = 0.2
    key_server.publish(OLD, NEW)
    waiting = asyncio.create_task(caller(authenticator, NEW))
    await until(lambda: key_server.fetches == 2, "the keys are fetched a second time")

    assert authenticator.caller(bearer(es256(OLD))) == ALICE
    assert not waiting.done()
    assert await waiting == ALICE


async def test_a_request_that_is_given_up_does_not_end_the_fetch_for_others(key_server, authenticator):
    key_server.delay = 0.1
    key_server.publish(OLD, NEW)
    waiting = [asyncio.create_task(caller(authenticator, NEW)) for _ in range(2)]
    await until(lambda: key_server.fetches == 2, "the keys are fetched a second time")
    waiting[0].cancel()

    assert await waiting[1] == ALICE


async def test_the_service_starts_without_the_key_server_and_waits_for_it(key_server):
    key_server.publish(OLD)
    await key_server.stop()
    async with by_impatient_server(key_server, retry_seconds=0.05) as authenticator:
        with pytest.raises(UnavailableError):
            authenticator.caller(bearer(es256(OLD)))
        await key_server.start()
        await until(lambda: key_server.fetches == 1, "the keys are fetched")
        await until(lambda: authenticator._keys.ring is not None, "the keys are taken")

        assert authenticator.caller(bearer(es256(OLD))) == ALICE


async def test_closing_does_not_wait_for_a_key_server(key_server):
    key_server.publish(OLD)
    async with by_server(key_server) as authenticator:
        key_server.delay = 60
        waiting = asyncio.create_task(caller(authenticator, NEW))
        await until(lambda: key_server.fetches == 2, "the keys are fetched a second time")
    with pytest.raises(asyncio.CancelledError):
        await waiting


@asynccontextmanager
async def by_file(path):
    async with watched_file(FileKeys(path, KeyTiming(poll_seconds=0.02))) as keys:
        yield Authenticator(keys, Requirements(None, None))


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(OLD))
    async with by_file(path) as authenticator:
        assert authenticator.caller(bearer(es256(OLD))) == ALICE
        path.write_bytes(key_set(NEW, OLD))
        await until_accepted(authenticator, NEW)
        path.write_bytes(key_set(NEW))
        await until(lambda: not authenticator._keys.ring.knows("old"), "the old key is forgotten")
        assert not await is_accepted(authenticator, OLD)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
async def test_a_file_that_is_spoilt_does_not_drop_good_keys(tmp_path, spoil):
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(OLD))
    async with by_file(path) as authenticator:
        with capture_logs() as lines:
            spoil(path)
            await until(lambda: lines, "the file is looked at")
        assert authenticator.caller(bearer(es256(OLD))) == ALICE
        path.write_bytes(key_set(NEW))
        await until_accepted(authenticator, NEW)


def test_a_file_without_keys_is_refused_before_anything_starts(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(key_set())

    with pytest.raises(ValueError, match="no public key"):
        Authenticator.open(enabled=True, jwks_file=path)


def _renamed(key, number):
    return bearer(es256(key, header={"kid": f"guess-{number}"}))


async def _refused(authenticator, text):
    try:
        found = authenticator.caller(text)
        if not isinstance(found, Caller):
            await found
    except InvalidTokenError:
        return True
    return False
