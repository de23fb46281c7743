"""Serves an ASGI app on a socket, by this process or by several workers; what the app does is not known here."""

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from multiprocessing.context import ForkProcess
from typing import Any, cast

import structlog
import uvicorn
import uvloop

from graphql_api.observability import logs
from graphql_api.web.connection import Connections
from graphql_api.web.connection_registry import ConnectionLimits

_STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_VERBOSITY_SIGNALS: dict[int, Callable[[], None]] = {signal.SIGUSR1: logs.log_more, signal.SIGUSR2: logs.log_less}
_HANDLED_SIGNALS = {*_STOP_SIGNALS, *_VERBOSITY_SIGNALS}
_BACKLOG = 2048
_FINISH_SECONDS = 18  # for what is under way when the listener closes
_RESTART_SECONDS = 1  # at least so long between two starts of one worker
# Python's own thresholds look for cycles every few requests, which takes a third of the time.
GC_THRESHOLDS = (10_000, 10, 5)
_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BUFFER = 256 * 1024  # bytes

_log = structlog.get_logger()

Listeners = Sequence[socket.socket]
"""The sockets that one worker serves on."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this host.

    Raises:
        OSError: there is no such host.
    """
    return all(ip_address(address[4][0]).is_loopback for address in socket.getaddrinfo(host, None))


@contextmanager
def listening(host: str, port: int, workers: int) -> Generator[list[socket.socket]]:
    """A socket for each worker, all on one port: the kernel spreads connections over them.

    A client is answered as soon as the worker of that socket, or its replacement, runs.

    Raises:
        OSError: there is no such host, or its port is taken.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with ExitStack() as closing:
        sockets = [closing.enter_context(socket.socket(family)) for _ in range(workers)]
        for listener in sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first, *others = sockets
        first.bind(address)
        for other in others:
            # The first one shares the port only now: bound alone, it has shown that no other process has it.
            for sharing in (first, other):
                sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(first.getsockname())
        for listener in sockets:
            listener.listen(_BACKLOG)
        yield sockets


def keep_signals() -> None:
    """From now on signals, by which a process would end, wait until `serve` handles them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_SIGNALS)


def serve(app: Any, listeners: list[Listeners], drain_seconds: float) -> None:
    """Serve with one worker process per set of sockets until a signal stops it. A single worker is this process.

    After SIGTERM, a worker keeps serving for `drain_seconds`. Meanwhile `draining` in the state of the lifespan tells
    the app that it will stop, and `Connection: close` tells clients.

    Raises:
        KeyboardInterrupt: a second signal cut off what was under way.
    """
    _return_memory()
    _allow_many_connections()
    if len(listeners) == 1:
        is_cut_off = uvloop.run(_work(app, listeners[0], drain_seconds))
    else:
        is_cut_off = _supervise(app, listeners, drain_seconds)
    _log.info("stopped")
    if is_cut_off:
        raise KeyboardInterrupt


def _return_memory() -> None:
    """Give large buffers back to the system once they are free: glibc would keep as much as the largest ever took."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER)


def _allow_many_connections() -> None:
    """Have as many open files as the system grants: mostly it begins with 1,024, and each client is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system that grants more than it can have
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """uvicorn's server, which here drains first, and ends with status 0 when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        for number, change_level in _VERBOSITY_SIGNALS.items():
            loop.add_signal_handler(number, change_level)
        if supervisor := multiprocessing.parent_process():
            loop.add_reader(supervisor.sentinel, self._supervisor_died, supervisor.sentinel)
            loop.add_signal_handler(signal.SIGINT, self._leave)
            handled = _HANDLED_SIGNALS - {signal.SIGHUP}  # it comes from a terminal, and is the supervisor's to pass on
        else:
            handled = _HANDLED_SIGNALS
            for number in _STOP_SIGNALS - {signal.SIGTERM}:
                loop.add_signal_handler(number, self._press, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        yield
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # nothing disturbs what is left to clean up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _drain(self) -> None:
        if "draining" not in self.lifespan.state:
            self.lifespan.state["draining"] = True
            if not multiprocessing.parent_process():
                _log.info("stopping", signal=signal.SIGTERM.name)
            asyncio.get_running_loop().call_later(self._drain_seconds, self._leave)

    def _press(self, number: signal.Signals) -> None:
        if not self.should_exit:
            _log.info("stopping", signal=number.name)
        self.handle_exit(signal.SIGINT, None)
        if self.force_exit:
            logging.disable()  # what is cut off now is not an error

    def _leave(self) -> None:
        self.should_exit = True

    def _supervisor_died(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self._leave()


def _limits() -> ConnectionLimits:
    """Those of connections: a quarter of the files that may be open is left to the database and the like."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ConnectionLimits(max_connections=min(ConnectionLimits.max_connections, files * 3 // 4))


async def _work(app: Any, listeners: Listeners, drain_seconds: float) -> bool:
    """Serve until a signal asks to stop; answers whether a second one cut off what was under way."""
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", Connections(_limits())),
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="warning",  # its other lines are about itself
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    server = _Server(config, drain_seconds)
    await server.serve([*listeners])
    return server.force_exit


class _Worker:
    """A child that serves. It is a fork: it starts at once, and shares the memory of what was built before."""

    def __init__(self, app: Any, listeners: Listeners, drain_seconds: float) -> None:
        self._serves = app, listeners, drain_seconds
        self.process = ForkProcess(target=self._run, args=self._serves)
        self._started = time.monotonic()
        self.process.start()

    @staticmethod
    def _run(app: Any, listeners: Listeners, drain_seconds: float) -> None:
        # These are kept until there is a handler; what else comes from a terminal is the supervisor's to pass on.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGHUP, *_VERBOSITY_SIGNALS})
        uvloop.run(_work(app, listeners, drain_seconds))

    def stop(self, *, drains: bool) -> None:
        """Ask it to end, at once or after having served on for a while."""
        os.kill(cast("int", self.process.pid), signal.SIGTERM if drains else signal.SIGINT)

    def replacement(self) -> "_Worker":
        status = self.process.exitcode or 0
        names = {-number: number.name for number in signal.Signals}
        _log.error("worker ended", pid=self.process.pid, status=names.get(status, status))
        time.sleep(max(0, self._started + _RESTART_SECONDS - time.monotonic()))
        worker = _Worker(*self._serves)
        _log.info("worker started", pid=worker.process.pid)
        return worker


def _supervise(app: Any, listeners: list[Listeners], drain_seconds: float) -> bool:
    """Keep a worker at each set of sockets until a signal asks to stop.

    A second signal ends them at once; answers whether one did.
    """
    gc.freeze()
    watched = {*_HANDLED_SIGNALS, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    workers = [_Worker(app, of_worker, drain_seconds) for of_worker in listeners]
    stopping = is_cut_off = False
    while workers:
        received = signal.sigwait(watched)
        if received in _VERBOSITY_SIGNALS:
            _VERBOSITY_SIGNALS[received]()  # here as well: workers to come are forks of this process
            for worker in workers:
                os.kill(cast("int", worker.process.pid), received)
        elif received != signal.SIGCHLD:
            if not stopping:
                _log.info("stopping", signal=signal.Signals(received).name)
            is_cut_off = stopping
            for worker in workers:
                if stopping:
                    worker.process.kill()
                else:
                    worker.stop(drains=received == signal.SIGTERM)
            stopping = True
        alive = [worker for worker in workers if worker.process.is_alive()]
        dead = [worker for worker in workers if worker not in alive]
        workers = alive if stopping else [*alive, *(worker.replacement() for worker in dead)]
    return is_cut_off
