"""The log level of a running service, by signals to the process that an operator knows."""

import signal

import pytest

from tests.until import until


async def ask(http, service, number=1):
    for _ in range(number):
        await http.get(f"{service.url}/nothing", headers={"connection": "close"})


async def until_said(service, level, processes):
    await until(
        lambda: [line["now"] for line in service.log("log level")].count(level) >= processes,
        f"{processes} processes say that they log {level}",
    )


async def test_a_signal_does_not_end_a_service_that_has_just_begun(serving):
    service = serving(LOG_LEVEL="error")
    service.process.send_signal(signal.SIGUSR1)
    await until_said(service, "warning", 1)
    assert service.end() == 0


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (2, 3)])
async def test_a_signal_reaches_every_process(serving, http, workers, processes):
    service = serving("--workers", str(workers), LOG_LEVEL="warning")
    await ask(http, service, 20)
    assert service.log() == []
    service.process.send_signal(signal.SIGUSR1)
    await until_said(service, "info", processes)
    await ask(http, service, 20)
    await until(lambda: len(service.log("request")) >= 20, "twenty requests are logged")
    service.process.send_signal(signal.SIGUSR2)
    await until_said(service, "warning", processes)
    await ask(http, service, 20)
    assert service.end() == 0
    assert len(service.log("request")) == 20


async def test_a_worker_that_replaces_another_says_as_much(serving, http):
    service = serving("--workers", "2", LOG_LEVEL="error")
    for level in ("warning", "info"):
        service.process.send_signal(signal.SIGUSR1)
        await until_said(service, level, 3)
    for worker in service.workers():
        worker.kill()

    async def twenty_are_logged():
        await ask(http, service, 1)
        return len(service.log("request")) >= 20

    await until(twenty_are_logged, "new workers log requests")
    assert service.end() == 0
