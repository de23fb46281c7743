"""Logging: one line per event, as JSON or for a terminal, with the id of its request.

Callers must not log secrets, access tokens, metadata or variables. This module keeps exceptions from adding any.
"""

import asyncio
import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import BinaryIO, Literal, get_args

import orjson
import structlog
from structlog.typing import EventDict

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]
Stamp = Callable[[object, str, EventDict], EventDict]

_NO_PRIVILEGE = "42501"
MAX_EXCEPTION_CHARACTERS = 4000
"""What is kept of an exception: its end, where it was raised."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def is_json(log_format: Format | None, stream: BinaryIO | None = None) -> bool:
    """Whether lines in this format are JSON on the stream (standard error): if none is set, unless it is a terminal."""
    return log_format == "json" or (log_format is None and not (sys.stderr if stream is None else stream).isatty())


def configure(
    level: Level, log_format: Format | None = None, stream: BinaryIO | None = None, *, stamps: Sequence[Stamp] = ()
) -> None:
    """Send all lines, also those of libraries, to the stream (standard error): as text on a terminal, else as JSON.

    `stamps` add fields to each line when it is logged.
    """
    lines = _Lines(sys.stderr.buffer if stream is None else stream)
    has_json = is_json(log_format, stream)
    structlog.configure(
        processors=[
            _stamp,
            *stamps,
            _exceptions,
            _json if has_json else _Console(colors=lines.is_terminal and not os.environ.get("NO_COLOR")),
        ],
        logger_factory=lambda *_: lines,
    )
    access.configure(lines, stamps, is_json=has_json)
    atexit.unregister(access.flush)
    atexit.register(access.flush)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    for chatty in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _set_level(level)


def log_more() -> None:
    """Switch to the next lower level and log that; `debug` is the lowest."""
    _change_level(-1)


def log_less() -> None:
    """Switch to the next higher level and log that; `error` is the highest."""
    _change_level(1)


class AccessLog:
    """The access log: one line per request. Lines of one turn of the event loop are written together."""

    def __init__(self) -> None:
        self.level: Level = "info"
        self.is_enabled = True
        self._lines: _Lines
        self._stamps: Sequence[Stamp] = ()
        self._is_json = True

    def configure(self, lines: "_Lines", stamps: Sequence[Stamp], *, is_json: bool) -> None:
        """Write to these lines."""
        self._lines, self._stamps, self._is_json = lines, stamps, is_json

    def write(self, request_id: str, event: EventDict) -> None:
        """Write the line of a request. Everything in it that a caller chose must be short."""
        if not self._is_json:
            structlog.get_logger().info(**event)
            return
        event["level"] = "info"
        event["timestamp"] = self._lines.now()
        event["request_id"] = request_id
        for stamp in self._stamps:
            stamp(None, "info", event)
        lines, line = self._lines, orjson.dumps(event, default=str)
        if lines.waiting:
            lines.waiting.append(line)
        else:
            lines.write_soon(line)

    def flush(self) -> None:
        """Write the pending lines."""
        self._lines.flush()


access = AccessLog()


def _set_level(level: Level) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    logging.getLogger().setLevel(level.upper())
    access.level = level
    access.is_enabled = logging.getLogger().isEnabledFor(logging.INFO)


def _change_level(by: int) -> None:
    levels = get_args(Level)
    place = levels.index(access.level) + by
    if 0 <= place < len(levels):
        _set_level(levels[place])
    structlog.get_logger().log(logging.getLogger().level, "log level", now=access.level)


class _Lines:
    """Writes lines, immediately or together with others of this turn of the loop. Failures are ignored."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.waiting: list[bytes] = []
        self._now = ""
        self.is_terminal = stream.isatty()

    def now(self) -> str:
        """The time of the first of the lines that wait, since they are written together; else the time now."""
        if not self.waiting:
            self._now = datetime.now(UTC).isoformat()
        return self._now

    def write_soon(self, line: bytes) -> None:
        if not self.waiting:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # there is no loop
                self.info(line)
                return
        self.waiting.append(line)

    def flush(self) -> None:
        if waiting := self.waiting:
            self.waiting = []
            self._write(b"\n".join(waiting))

    def info(self, line: bytes) -> None:
        self.flush()
        self._write(line)

    debug = warning = error = critical = info

    def _write(self, lines: bytes) -> None:
        try:
            self._stream.write(lines + b"\n")
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a reader that went away, a closed stream
            pass


class _Forward(logging.Handler):
    """Forwards what libraries log through the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def _stamp(_logger: object, level: str, event: EventDict) -> EventDict:
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    if current := request_id.get():
        event["request_id"] = current
    return event


def _exceptions(_logger: object, _level: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into text.

    While a request is served, an exception can quote what the caller sent, as PostgreSQL's do. So its message is left
    out unless the level is `debug`, and its location must suffice.
    """
    exc_info = event.pop("exc_info", None)
    if exc_info is not None and (error := _raised(exc_info)) is not None:
        with_message = access.level == "debug" or request_id.get() is None
        lines = traceback.format_exception(error) if with_message else _frames(error)
        text = "".join(lines).rstrip()
        event["exception"] = text if len(text) <= MAX_EXCEPTION_CHARACTERS else f"…{text[-MAX_EXCEPTION_CHARACTERS:]}"
    return event


def _raised(exc_info: BaseException | tuple[object, object, object] | bool | None) -> BaseException | None:  # noqa: FBT001
    """The exception in `exc_info`, which is an exception, `sys.exc_info()`, or true for the latter."""
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exc_info()[1]
        case _:
            return None


def _frames(error: BaseException) -> list[str]:
    """The exception and its causes, without messages. Codes of PostgreSQL and of the system are harmless."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = [*_frames(cause), "\nwhich led to:\n\n"] if cause else []
    codes = "".join(f" {name}={code}" for name in ("sqlstate", "errno") if (code := getattr(error, name, None)))
    if getattr(error, "sqlstate", None) == _NO_PRIVILEGE:  # whose message names a table or a function, and no value
        codes += f" ({error.args[0]}: a grant is missing, `gateway-tokens doctor` lists it)"
    kind = type(error)
    return [*before, *traceback.format_tb(error.__traceback__), f"{kind.__module__}.{kind.__qualname__}{codes}\n"]


def _json(_logger: object, _level: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=str)


class _Console:
    """A line of text for a terminal."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors)

    def __call__(self, logger: object, level: str, event: EventDict) -> bytes:
        event["timestamp"] = event["timestamp"].isoformat("T", "milliseconds")
        return self._render(logger, level, event).encode(errors="replace")
