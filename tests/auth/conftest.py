"""What tests of authentication share: a key server."""

import pytest

from tests.auth.issuer import KeyServer


@pytest.fixture
async def key_server():
    server = KeyServer()
    await server.start()
    yield server
    await server.stop()
