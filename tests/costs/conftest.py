"""What a request costs: its CPU, the length of its answer, and what stays in memory."""

import gc
import sys
import time

import httpx
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import READ_SCOPE, WRITE_SCOPE
from graphql_api.engine import MAX_ANSWER_BYTES, MAX_ANSWER_ERRORS
from graphql_api.schema import build_schema
from graphql_api.server import GC_THRESHOLDS
from graphql_api.settings import Settings
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET

MAX_CPU_SECONDS, MAX_CPU_SECONDS_PER_BYTE = 0.05, 1e-6
SLOW_MACHINE = 5  # what is promised may take that many times as long on the slowest one


def allowed_seconds(size):
    return SLOW_MACHINE * (MAX_CPU_SECONDS + MAX_CPU_SECONDS_PER_BYTE * size)


@pytest.fixture(autouse=True)
def untraced():
    """Pauses the measuring of coverage, which takes several times the CPU of what it measures.

    By the trace function: a worker of pytest-xdist has two measurements under way, of which coverage names one.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.fixture(autouse=True)
def collected_as_in_production():
    """Looks for garbage as often as the server does; `gc.freeze` keeps out what there was before a request."""
    known = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    yield
    gc.set_threshold(*known)
    gc.unfreeze()


@pytest.fixture
async def callers(client, as_user, as_service, graph):
    """Who may ask; one user has many tokens, of which each has as much as it can hold."""
    inputs = [
        {
            "userId": "rich",
            "gateway": f"G{number}",
            "gatewayCustomerId": f"cus_{number}",
            "metadata": {"a": "x" * 16_000},
        }
        for number in range(120)
    ]
    for first in range(0, len(inputs), 40):
        await graph.save_many(inputs[first : first + 40])
    return {None: client, "user": as_user("rich"), "service": as_service(READ_SCOPE, WRITE_SCOPE)}


@pytest.fixture
def cost(callers):
    """Sends a request some times; the least CPU seconds that it took, and its length."""
    return measuring(callers)


@pytest.fixture
async def cost_by_core(database_url):
    """The same from a service that runs every operation by graphql-core."""
    async with opened(
        create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET, engine="graphql-core"))
    ) as app:
        yield measuring({None: Client(app), "user": Client(app, mint(AUTH_SECRET, "rich"))})


def measuring(callers):
    async def measure(case, size):
        request = case.make(size)
        http = callers[case.caller].http
        headers = {"content-type": "application/json", **request.headers}
        gc.freeze()
        best = float("inf")
        for _ in range(2):
            began = time.process_time()
            answer = await http.request(request.method, request.path, content=request.body, headers=headers)
            best = min(best, time.process_time() - began)
        check(answer)
        return best, len(request.body)

    return measure


def check(answer: httpx.Response):
    assert answer.status_code < 500, answer.text[:500]
    assert len(answer.content) <= MAX_ANSWER_BYTES
    if answer.headers["content-type"].startswith("application/") and answer.content:
        told = answer.json()
        errors = [error for each in (told if isinstance(told, list) else [told]) for error in each.get("errors", [])]
        assert len(errors) <= MAX_ANSWER_ERRORS
        assert not any(error["extensions"]["code"] in {"INTERNAL", "TIMEOUT"} for error in errors), answer.text[:500]


@pytest.fixture(scope="session")
def schema():
    return build_schema()._schema
