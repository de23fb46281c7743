from types import SimpleNamespace

import pytest


@pytest.fixture
def logged(monkeypatch):
    """What the endpoints log from now on."""
    lines = []

    def log(event, **fields):
        lines.append({"event": event} | fields)

    monkeypatch.setattr("graphql_api.webhooks.endpoint._log", SimpleNamespace(info=log, warning=log))
    return lines
