import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from tests.conftest import AUTH_SECRET
from tests.gateways.graph import GRAPH
from tests.node import install
from tests.ports import free_port

pytestmark = pytest.mark.slow
COMPOSE = GRAPH.parent / "compose.yaml"


async def test_the_example_graph_prints_a_stitched_answer_and_stops_when_interrupted(empty_database):
    settings = {"TOKENS_PORT": str(free_port()), "GATEWAY_PORT": str(free_port()), "DATABASE_URL": empty_database}
    graph = await asyncio.create_subprocess_exec(
        "node",
        install(GRAPH) / "run.mjs",
        env={**os.environ, "PYTHON": sys.executable, **settings},
        stdout=asyncio.subprocess.PIPE,
    )
    assert graph.stdout

    printed = await graph.stdout.readuntil(b"Ctrl-C")
    async with httpx.AsyncClient() as client:
        help_page = await client.get(f"http://127.0.0.1:{settings['GATEWAY_PORT']}/help/errors")
    graph.send_signal(signal.SIGINT)
    status = await graph.wait()

    answer = json.loads(printed[printed.index(b"returns") + len("returns") : printed.rindex(b"}") + 1])
    first = answer["data"]["users"][0]
    assert first["name"] == "Ada Adams"
    assert first["gatewayTokens"]
    assert "errors" not in answer
    assert 'id="forbidden"' in help_page.raise_for_status().text
    assert status == 0


async def test_with_authentication_the_example_graph_prints_the_denial_and_no_log(empty_database):
    settings = {"TOKENS_PORT": str(free_port()), "GATEWAY_PORT": str(free_port()), "DATABASE_URL": empty_database}
    graph = await asyncio.create_subprocess_exec(
        "node",
        install(GRAPH) / "run.mjs",
        env={**os.environ, "PYTHON": sys.executable, "AUTH_SECRET": AUTH_SECRET, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert graph.stdout
    printed = await graph.stdout.readuntil(b"Ctrl-C")
    graph.send_signal(signal.SIGINT)
    _, logged = await graph.communicate()
    assert b"UNAUTHENTICATED" in printed
    assert b"denied" not in logged


async def refused(**settings):
    """The status and the error of the example graph, which prints nothing."""
    graph = await asyncio.create_subprocess_exec(
        "node",
        GRAPH / "run.mjs",
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await graph.communicate()
    assert printed == b""
    return graph.returncode, said.decode()


@pytest.mark.parametrize("variable", ["TOKENS_PORT", "GATEWAY_PORT"])
@pytest.mark.parametrize("value", ["abc", "0", "65536"])
async def test_a_variable_of_the_example_graph_that_holds_no_port_is_named(variable, value):
    says = f"{variable}: '{value}' is not a port from 1 to 65535.\n"
    assert await refused(**{variable: value}) == (2, says)


@pytest.mark.parametrize("variable", ["TOKENS_PORT", "GATEWAY_PORT"])
async def test_a_port_of_the_example_graph_that_another_program_uses_is_one_line(variable):
    async def answer(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        settings = {"TOKENS_PORT": str(free_port()), "GATEWAY_PORT": str(free_port()), variable: str(port)}
        says = f"Port {port} is in use by another program: set {variable}.\n"
        assert await refused(**settings) == (1, says)


async def test_the_example_graph_waits_for_the_end_of_a_service_that_stops_and_starts_its_own():
    answers = iter([b"503 Unavailable", b"200 OK"])

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        status = next(answers)
        writer.write(b"HTTP/1.1 %s\r\nConnection: close\r\n\r\nCustomer gateway tokens" % status)
        writer.close()
        if status == b"200 OK":
            server.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = str(server.sockets[0].getsockname()[1])
    says = f"Waiting until the service on port {port} is ready or has ended …\ngateway-tokens ended.\n"
    assert await refused(TOKENS_PORT=port, GATEWAY_PORT=str(free_port()), PYTHON="false") == (1, says)


def test_the_dockerfile_of_the_example_graph_is_without_reproach():
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, "--failure-threshold", "style", GRAPH / "Dockerfile"], check=True)


def test_the_compose_file_is_one():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    subprocess.run(check, check=True)


def test_what_the_services_of_the_compose_file_name_is_there():
    services = YAML(typ="safe").load(COMPOSE)["services"]
    for service in services.values():
        context = COMPOSE.parent / service["build"] if "build" in service else None
        assert context is None or (context / "Dockerfile").is_file()
        scripts = [word for word in service.get("command", []) if word.endswith(".mjs")]
        assert all((context / script).is_file() for script in scripts)
        for name in service.get("depends_on", {}):
            of_its_image = (
                services[name].get("build") == "." and "HEALTHCHECK" in (COMPOSE.parent / "Dockerfile").read_text()
            )
            assert of_its_image or "healthcheck" in services[name]

    [*_, users, orders, tokens] = services["gateway"]["command"]

    assert users == f"--dev-service=users=http://users:{services['users']['environment']['PORT']}/graphql"
    assert orders == f"--dev-service=orders=http://orders:{services['orders']['environment']['PORT']}/graphql"
    assert tokens == "--dev-service=tokens=http://tokens:8000/graphql"


def test_the_compose_file_opens_ports_to_this_machine_only():
    services = YAML(typ="safe").load(COMPOSE)["services"]

    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
