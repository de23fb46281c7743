"""What a line of the log holds, and what it never does."""

import io
import json
import logging
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from graphql_api.observability import logs


class Terminal(io.BytesIO):
    def isatty(self):
        return True


@pytest.fixture
def stream():
    """Where the lines go; the request's id is gone afterwards."""
    token = logs.request_id.set(None)
    yield io.BytesIO()
    logs.request_id.reset(token)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream):
    logs.configure("info", "json", stream)
    structlog.get_logger().info("hello", text="ä\n", number=1)
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {"event": "hello", "text": "ä\n", "number": 1, "level": "info"}


def test_tests_can_look_at_lines_instead(stream):
    logs.configure("info", "json", stream)
    with capture_logs() as captured:
        structlog.get_logger().warning("hello")
    assert [line["event"] for line in captured] == ["hello"]
    assert stream.getvalue() == b""


def test_what_json_does_not_know_is_written_as_text(stream):
    logs.configure("info", "json", stream)
    structlog.get_logger().info("hello", a={1})
    assert lines(stream)[0]["a"] == "{1}"


def test_a_line_bears_the_id_of_its_request(stream):
    logs.configure("info", "json", stream)
    logs.request_id.set("abc")
    structlog.get_logger().info("hello")
    assert lines(stream)[0]["request_id"] == "abc"


def test_a_terminal_gets_lines_for_people_unless_told_otherwise():
    for log_format, is_json in ((None, False), ("console", False), ("json", True)):
        stream = Terminal()
        logs.configure("info", log_format, stream)
        structlog.get_logger().info("hello")
        assert stream.getvalue().startswith(b"{") is is_json


@pytest.mark.parametrize(("value", "is_colored"), [("", True), ("1", False)])
def test_a_terminal_gets_colors_unless_told_otherwise(monkeypatch, value, is_colored):
    monkeypatch.setenv("NO_COLOR", value)
    logs.configure("info", "console", stream := Terminal())
    structlog.get_logger().info("hello")
    assert (b"\x1b[" in stream.getvalue()) is is_colored


def test_a_file_gets_json_unless_told_otherwise():
    for log_format, is_json in ((None, True), ("console", False), ("json", True)):
        stream = io.BytesIO()
        logs.configure("info", log_format, stream)
        structlog.get_logger().info("hello")
        assert stream.getvalue().startswith(b"{") is is_json


def test_lines_below_the_level_are_left_out_the_libraries_too(stream):
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("a")
    logging.getLogger("library").info("b")
    assert lines(stream) == []


def test_what_libraries_log_is_written_once_however_often_the_log_is_configured(stream):
    logs.configure("info", "json", stream)
    logs.configure("info", "json", stream)
    logging.getLogger("library").info("hello %s", "there")
    [line] = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("hello there", "library", "info")


def test_addresses_that_are_fetched_are_not_logged(stream):
    logs.configure("debug", "json", stream)
    logging.getLogger("httpx").info("HTTP Request: GET https://user:secret@keys.example/")
    assert lines(stream) == []


def read_card(number="4111 1111 1111 1111"):
    try:
        Path("/nowhere").read_text()
    except OSError as error:
        raise ValueError(number) from error


@pytest.mark.parametrize("logger", [structlog.get_logger(), logging.getLogger("library")])
def test_an_exception_in_a_request_is_logged_without_what_the_caller_sent(stream, logger):
    logs.configure("info", "json", stream)
    logs.request_id.set("abc")
    try:
        read_card()
    except ValueError:
        logger.exception("x")
    [line] = lines(stream)
    assert "in read_card" in line["exception"]
    assert "builtins.FileNotFoundError errno=2\n\nwhich led to:\n" in line["exception"]
    assert line["exception"].endswith("builtins.ValueError")
    assert "4111 1111 1111 1111" not in line["exception"]


@pytest.mark.parametrize(("level", "request_id"), [("debug", "abc"), ("info", None)])
def test_an_exception_is_logged_whole_for_debugging_and_outside_of_requests(stream, level, request_id):
    logs.configure(level, "json", stream)
    logs.request_id.set(request_id)
    structlog.get_logger().error("x", exc_info=ValueError("4111 1111 1111 1111"))
    assert lines(stream)[0]["exception"] == "ValueError: 4111 1111 1111 1111"


def test_where_nothing_was_raised_there_is_no_exception(stream):
    logs.configure("info", "json", stream)
    structlog.get_logger().error("x", exc_info=True)
    assert "exception" not in lines(stream)[0]


def test_a_log_that_cannot_be_written_stops_nothing():
    stream = io.BytesIO()
    logs.configure("info", "json", stream)
    stream.close()
    structlog.get_logger().info("hello")
    with Path("/dev/full").open("wb", buffering=0) as full:  # a disk without room
        logs.configure("info", "json", full)
        structlog.get_logger().info("hello")


def levels_said(stream):
    return [line["now"] for line in lines(stream) if line["event"] == "log level"]


def test_the_level_changes_step_by_step_as_far_as_it_goes(stream):
    logs.configure("warning", "json", stream)
    early = structlog.get_logger()
    for _ in range(3):
        logs.log_more()
    early.debug("a")
    logging.getLogger("library").debug("b")
    logs.access.write("an-id", {"event": "c"})
    for _ in range(4):
        logs.log_less()
    early.warning("d")
    logging.getLogger("library").warning("e")
    logs.access.is_enabled and logs.access.write("an-id", {"event": "f"})
    assert levels_said(stream) == ["info", "debug", "debug", "info", "warning", "error", "error"]
    assert [line["event"] for line in lines(stream) if line["event"] != "log level"] == ["a", "b", "c"]


def test_an_exception_is_logged_whole_from_when_everything_is_said(stream):
    logs.configure("info", "json", stream)
    logs.request_id.set("abc")
    structlog.get_logger().error("x", exc_info=ValueError("4111 1111 1111 1111"))
    logs.log_more()
    structlog.get_logger().error("x", exc_info=ValueError("4111 1111 1111 1111"))
    said = [line["exception"] for line in lines(stream) if line["event"] == "x"]
    assert said == ["builtins.ValueError", "ValueError: 4111 1111 1111 1111"]
