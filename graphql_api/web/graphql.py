"""GraphQL over HTTP: what every `/graphql` request is answered.

A plain ASGI callable, because a framework's request and response would cost more than all that is done here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any, NamedTuple

import orjson
import structlog
from graphql import GraphQLError, MiddlewareManager, OperationType
from starlette.types import Receive, Scope, Send

from graphql_api import limits
from graphql_api.domain.caller import NOBODY, Caller
from graphql_api.domain.cards import redact_card_numbers
from graphql_api.domain.errors import UnavailableError
from graphql_api.engine import Engine, Operation, Result
from graphql_api.limits.trusted import TrustedDocuments
from graphql_api.observability import logs
from graphql_api.observability.metrics import Metrics
from graphql_api.web import answers, errors, field_trace, parameters
from graphql_api.web.authentication import RequestAuthenticator
from graphql_api.web.concurrency import ConcurrencyLimiter
from graphql_api.web.exchange import ClientDisconnectedError, Exchange
from graphql_api.web.field_trace import FieldTrace
from graphql_api.web.http_errors import Headers, HTTPError
from graphql_api.web.media_types import MediaType, acceptable, must_be_json
from graphql_api.web.parameters import Parameters
from graphql_api.web.watch import End, Watch, Watched

_log = structlog.get_logger()

_MAX_BODY_SECONDS = 10.0
_MAX_WAIT_SECONDS = 1.0
_LATER: Headers = [(b"retry-after", b"1")]


class Answer(NamedTuple):
    """What goes back; `outcome` is the access log's word for it: `ok`, or the first error's code."""

    status: int
    body: bytes
    outcome: str
    headers: Headers = ()


class GraphQL:
    """Answers GraphQL requests."""

    def __init__(
        self,
        *,
        engine: Engine,
        admission: RequestAuthenticator,
        documents: TrustedDocuments | None,
        context: Callable[[Caller, str], object],
        metrics: Metrics,
        reach: Callable[[float], Awaitable[None]],
        max_body_bytes: int,
        max_concurrent: int,
        timeout: float,
        traces_fields: bool,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._documents = documents
        self._context = context
        self._metrics = metrics
        self._reach = reach
        self._max_body_bytes = max_body_bytes
        self._timeout = timeout
        self._traces_fields = traces_fields
        self._loop = asyncio.get_running_loop()
        self._places = ConcurrencyLimiter(max_concurrent)
        self._watch = Watch()
        self._mutations: set[asyncio.Future[Result]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began = perf_counter()
        exchange = Exchange(scope, receive, send)
        logs.request_id.set(exchange.request_id)
        answer = await self._answer(exchange)
        if answer is not None:
            await exchange.answer(answer.status, answer.body, answer.headers)
        self._tell(exchange, answer, perf_counter() - began)

    @property
    def in_flight(self) -> int:
        """How many requests wait or run."""
        return len(self._watch)

    async def close(self) -> None:
        """Wait for the mutations whose callers have been answered already."""
        await asyncio.gather(*self._mutations, return_exceptions=True)

    def _tell(self, exchange: Exchange, answer: Answer | None, seconds: float) -> None:
        """Say how it went, in the log and in the metrics."""
        operation, caller = exchange.operation, exchange.caller
        name = redact_card_numbers(operation.name) if operation and operation.name else None
        kind = operation.kind_name if operation else None
        outcome = outcome_of(answer)
        teaches = outcome == "ok" and caller is not NOBODY
        self._metrics.request(name or "", kind or "", outcome, seconds, teaches=teaches)
        logs.access.info(
            "request",
            method=exchange.method,
            path=exchange.path,
            status=answer.status if answer else None,
            ms=round(seconds * 1000, 2),
            operation=name,
            kind=kind,
            caller=caller.subject if caller else None,
            outcome=outcome,
        )

    async def _answer(self, exchange: Exchange) -> Answer | None:
        """The answer, whatever happens; none where nobody waits for it any more."""
        watched = self._watch.enter(_MAX_BODY_SECONDS)
        try:
            return await self._answer_in_time(exchange, watched)
        except HTTPError as refusal:
            if refusal.limit:
                self._metrics.limit(refusal.limit)
            return _refused(refusal.status, refusal.code, str(refusal), refusal.headers)
        except ClientDisconnectedError:
            return None
        except asyncio.CancelledError:
            if watched.ended is None:
                raise
            return self._too_late(exchange) if watched.ended is End.TIME_IS_UP else None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            _log.error("unexpected error", exc_info=error)
            return _failed(500, [errors.internal(exchange.request_id)])
        finally:
            self._watch.leave(watched)

    async def _answer_in_time(self, exchange: Exchange, watched: Watched) -> Answer:
        exchange.media = acceptable(exchange.headers.get(b"accept"))
        admitted = self._admission.admit(exchange.headers)
        exchange.caller = caller = admitted if isinstance(admitted, Caller) else await admitted
        asked = await self._asked(exchange)
        watched.receive = exchange.receive
        if not self._places.acquire():
            await self._wait_in_line(watched)
        try:
            watched.allow(self._timeout)
            return await self._run(asked, caller, exchange, watched)
        finally:
            self._places.release()

    async def _wait_in_line(self, watched: Watched) -> None:
        """Take one of the places in which requests run, first come, first served.

        Those who wait for the database keep theirs; while it is away, nobody waits in line behind them.

        Raises:
            HTTPError: 503, none became free in time, or the database did not come back.
        """
        began = perf_counter()
        await self._wait_for_the_database(0)
        watched.allow(_MAX_WAIT_SECONDS)
        try:
            await self._places.wait()
        except asyncio.CancelledError:
            if watched.ended is not End.TIME_IS_UP:
                raise
            message = "The service is overloaded. Try again in a moment."
            raise HTTPError(503, "UNAVAILABLE", message, _LATER, limit="MAX_CONCURRENT_REQUESTS") from None
        try:
            watched.allow(self._timeout)
            await self._wait_for_the_database(perf_counter() - began)
        except BaseException:
            self._places.release()
            raise

    async def _wait_for_the_database(self, waited: float) -> None:
        try:
            await self._reach(waited)
        except UnavailableError as error:
            raise HTTPError(503, "UNAVAILABLE", f"{error} Try again.", _LATER) from None

    async def _run(self, asked: Parameters, caller: Caller, exchange: Exchange, watched: Watched) -> Answer:
        operation = self._prepared(asked)
        if isinstance(operation, list):
            self._count_limits(operation)
            return _not_run(errors.about_document(operation), exchange.media)
        exchange.operation = operation
        if exchange.method == "GET" and operation.kind is not OperationType.QUERY:
            raise HTTPError(405, "METHOD_NOT_ALLOWED", "Send mutations by POST.", [(b"allow", b"POST")])
        context = self._context(caller, exchange.request_id)
        if self._traces_fields and exchange.headers.get(field_trace.HEADER) == field_trace.VALUE:
            trace = FieldTrace()
            with trace.recording():
                executed = self._execute(operation, asked.variables, context, watched, trace.middleware)
                result = executed if isinstance(executed, Result) else await executed
            return self._answered(result, exchange, extensions=trace.get_results())
        executed = self._execute(operation, asked.variables, context, watched)
        return self._answered(executed if isinstance(executed, Result) else await executed, exchange)

    def _execute(
        self,
        operation: Operation,
        variables: dict[str, Any] | None,
        context: object,
        watched: Watched,
        middleware: MiddlewareManager | None = None,
    ) -> Result | Awaitable[Result]:
        result = operation.execute(variables, context, middleware=middleware)
        if isinstance(result, Result) or operation.kind is OperationType.QUERY:
            return result
        watched.receive = None
        return self._to_its_end(result)

    async def _asked(self, exchange: Exchange) -> Parameters:
        if exchange.method == "GET":
            return parameters.from_query_string(exchange.query_string)
        if exchange.method != "POST":
            raise HTTPError(405, "METHOD_NOT_ALLOWED", "Send GET or POST.", [(b"allow", b"GET, POST")])
        must_be_json(exchange.headers.get(b"content-type"), exchange.headers.get(b"content-encoding"))
        return parameters.from_body(await exchange.body(self._max_body_bytes))

    def _prepared(self, asked: Parameters) -> Operation | list[GraphQLError]:
        query = asked.query
        if self._documents is not None:
            try:
                query = self._documents.find(query, asked.document_id)
            except GraphQLError as error:
                return [error]
        elif query is None:
            raise HTTPError(400, "BAD_REQUEST", "`query` is missing. This service knows no documents by id.")
        return self._engine.prepare(query, asked.operation_name)

    async def _to_its_end(self, mutation: Coroutine[Any, Any, Result]) -> Result:
        """A mutation that has begun goes on although its caller stops waiting: nothing is left half done."""
        task = self._loop.create_task(mutation)
        self._mutations.add(task)
        task.add_done_callback(self._mutations.discard)
        return await asyncio.shield(task)

    def _answered(self, result: Result, exchange: Exchange, extensions: dict[str, Any] | None = None) -> Answer:
        if not result.errors:
            return Answer(200, *answers.write(result, [], extensions))
        if not result.executed:
            self._count_limits(result.errors)
            return _not_run(errors.about_variables(result.errors), exchange.media)
        subject = exchange.caller.subject if exchange.caller else None
        told = errors.about_fields(result.errors, exchange.request_id, subject)
        return Answer(200, *answers.write(result, told, extensions))

    def _count_limits(self, found: list[GraphQLError]) -> None:
        for error in found:
            if limit := limits.limit_of(error):
                self._metrics.limit(limit)

    def _too_late(self, exchange: Exchange) -> Answer:
        if exchange.operation is None:
            return _refused(408, "TIMEOUT", f"The request body did not arrive within {_MAX_BODY_SECONDS:g} s.")
        self._metrics.limit("REQUEST_TIMEOUT")
        status = 504 if exchange.media is MediaType.GRAPHQL else 200
        return _refused(status, "TIMEOUT", f"The request took longer than {self._timeout:g} s (REQUEST_TIMEOUT).")


def outcome_of(answer: Answer | None) -> str:
    """What metrics, the access log and traces say of a request in a word."""
    return answer.outcome if answer else "CLIENT_HAS_GONE"


def _not_run(told: list[errors.Formatted], media: MediaType) -> Answer:
    """A request that was not run: by GraphQL's own media type a failure, in plain JSON an answer like any other."""
    return _failed(400 if media is MediaType.GRAPHQL else 200, told)


def _refused(status: int, code: str, message: str, headers: Headers = ()) -> Answer:
    return _failed(status, [errors.refused(code, message)], headers)


def _failed(status: int, told: list[errors.Formatted], headers: Headers = ()) -> Answer:
    return Answer(status, orjson.dumps({"errors": told}), told[0]["extensions"]["code"], headers)
