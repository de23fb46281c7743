"""GraphQL over HTTP: what every `/graphql` request is answered.

`GraphQL.respond` is the way of a request, from its head to its answer: who asks, what they ask, may they, run, write,
say. Whatever is unusual leaves it by `HTTPError`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, NoReturn

import orjson
import structlog
from graphql import MiddlewareManager, OperationType
from starlette.types import Receive, Scope, Send

from graphql_api import limits
from graphql_api.domain import deadline
from graphql_api.domain.caller import Caller
from graphql_api.domain.errors import UnavailableError
from graphql_api.engine import Operation, Result, Room
from graphql_api.observability import logs
from graphql_api.observability.metrics import Metrics
from graphql_api.web import answers, asgi, compression, errors, field_trace, parameters, request_ids
from graphql_api.web.admission import LATER, Admission
from graphql_api.web.authentication import RequestAuthenticator
from graphql_api.web.documents import Documents, not_run
from graphql_api.web.field_trace import FieldTrace
from graphql_api.web.hosts import AllowedHosts
from graphql_api.web.http_errors import Headers, HTTPError
from graphql_api.web.in_flight import RequestsInFlight
from graphql_api.web.media_types import MediaType, acceptable, must_be_json
from graphql_api.web.mutations import Mutations
from graphql_api.web.parameters import Parameters
from graphql_api.web.request import ClientDisconnectedError, Interruption, Request, Response
from graphql_api.web.uploads import Uploads

_SHORT_LIST = 100  # representations
_MAX_FAILURES_LOGGED, _MAX_FIELDS_LOGGED_OF_BATCHES = 2, 3  # requests of a batch, and fields of each
# Of the time that a request waits for the database, so much is over once an earlier one of its batch found it away.
_WAITED_SECONDS = 2.2
_MAX_LOGGED_USER_ERRORS = 20  # codes; a batch of a thousand inputs would make a long line
_log = structlog.get_logger()

CLIENT_HAS_GONE = "CLIENT_HAS_GONE"
_JSON = b"application/json"
_NO_WEBSOCKETS = (
    "This service does not support WebSockets: it has no subscriptions. Send queries and mutations by POST. To follow"
    " changes, read `customerGatewayTokenEvents`."
)
_new = tuple.__new__  # of a named tuple: its class would be a call more, for each request


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may take, and how many there may be at a time.

    `answer_share` is the share of the time that is kept for the last commit and the answer: a mutation begins and
    changes nothing then.
    """

    max_body_bytes: int
    max_concurrent: int
    timeout_seconds: float
    max_batch: int = 10
    max_body_seconds: float = 10.0
    max_wait_seconds: float = 1.0
    answer_share: float = 0.25


@dataclass(eq=False, kw_only=True)
class GraphQL:
    """Answers GraphQL requests. It is an ASGI app too.

    `documents` prepares what requests ask for, `context` makes what resolvers get, `wait_connected` waits for a
    database that is away, `uploads` receives bodies that do not come at once, `hosts` are those that are answered to
    (None: any), `cors_headers` is what an answer to a page of another origin says.
    """

    documents: Documents
    authenticator: RequestAuthenticator
    context: Callable[[Caller, str, list[str]], object]
    metrics: Metrics
    wait_connected: Callable[[float], Awaitable[None]]
    limits: RequestLimits
    uploads: Uploads
    traces_fields: bool
    hosts: AllowedHosts | None = None
    cors_headers: Callable[[bytes], Headers] | None = None
    compresses: bool = True

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_flight = RequestsInFlight()
        self._admission = Admission(
            self.limits.max_concurrent,
            wait_seconds=self.limits.max_wait_seconds,
            timeout_seconds=self.limits.timeout_seconds,
            in_flight=self._in_flight,
            wait_connected=self.wait_connected,
        )
        self._mutations = Mutations()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that comes by ASGI."""
        request = asgi.ASGIRequest(scope, receive)
        request.task = asyncio.current_task()
        response = await self.respond(request)
        if response is not None:
            await asgi.write_response(send, response, is_head=request.method == "HEAD")

    @property
    def in_flight(self) -> int:
        """How many requests wait or run."""
        return len(self._in_flight)

    async def close(self) -> None:
        """Wait for the mutations whose callers have been answered already."""
        await self._mutations.close()

    async def respond(self, request: Request) -> Response | None:  # noqa: C901, PLR0912, PLR0915 - one way, in its order
        """The answer, whatever happens; None if the client no longer waits for it."""
        began = perf_counter()
        headers = request.headers
        request.id = request_id = request_ids.of_header(headers.get(request_ids.HEADER))
        logs.request_id.set(request_id)
        status, more = 200, b""
        self._in_flight.enter(request)
        request.is_interruptible = True
        try:
            if self.hosts is not None and (refusal := self.hosts.refusal(headers.get(b"host"))):
                raise HTTPError(421, "MISDIRECTED_REQUEST", refusal)  # noqa: TRY301 - left here like all that is refused
            if b"accept" in headers:
                request.media_type = acceptable(headers[b"accept"])

            # Who asks
            caller = self.authenticator.admit(headers)
            if not isinstance(caller, Caller):
                caller = await caller
            request.caller = caller

            # What they ask
            if request.method == "POST":
                is_plain = headers.get(b"content-type") == _JSON and b"content-encoding" not in headers
                coding = None if is_plain else _coding_of_json(headers)
                body = request.whole_body()
                if body is None:
                    body = await self._receive(request)
                elif len(body) > self.limits.max_body_bytes and coding is None:
                    _refuse_as_too_large(self.limits.max_body_bytes)
                if coding is not None:
                    body = compression.decompress(body, coding, self.limits.max_body_bytes)
                asked = parameters.from_body(body, self.limits.max_batch)
            else:
                asked = _from_url(request)

            # May they, now
            if not self._admission.places.acquire():
                await self._admission.wait(request, self._admission.places)
            request.place = self._admission.places
            try:
                # Run, write
                request.deadline = self._loop.time() + self.limits.timeout_seconds
                if isinstance(asked, list):
                    if any(map(_may_change, asked)):
                        await self._admission.move(request)
                    body, outcome = await self._answer_batch(request, asked, caller)
                else:
                    request.operation = operation = self.documents.prepare(request, asked)
                    if operation.kind is OperationType.MUTATION:
                        await self._admission.move(request)
                    context = self.context(caller, request_id, request.user_errors)
                    if self.traces_fields and headers.get(field_trace.HEADER) == field_trace.VALUE:
                        body, outcome = await self._answer_traced(request, operation, asked, context)
                    else:
                        result = self._execute(request, operation, asked.variables, context)
                        if not isinstance(result, Result):
                            result = await result
                        if result.errors:
                            body, outcome = self._write(request, operation, result)
                        else:
                            body, outcome = orjson.dumps({"data": result.data}), "ok"
            finally:
                self._admission.leave(request)
        except HTTPError as error:
            status, body, outcome = self._refused(request, error)
            more = _lines(error.headers)
        except (ClientDisconnectedError, asyncio.CancelledError) as error:
            _take_interruption(request, error)
            status, body, outcome = None, b"", CLIENT_HAS_GONE
            if request.interruption is Interruption.TIME_IS_UP:
                status, body, outcome = self._refused(request, self._too_late(request))
                if request.batch_size:
                    body = b"[%b]" % b",".join([body] * request.batch_size)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            status, (body, outcome) = 500, _unexpected(request, error)
        finally:
            self._in_flight.leave(request)
            request.is_interruptible = False

        # Say
        if len(body) > answers.UNAUTHENTICATED_BOUNDS.max_bytes and request.room is None:
            bounds = answers.bounds_of(request.caller)
            if len(body) > bounds.max_bytes:
                body, outcome = answers.too_large(bounds)
        self._tell(request, status, outcome, perf_counter() - began)
        if status is None:
            return None
        if self.compresses and len(body) > compression.MIN_BYTES:
            body, about_coding = await compression.compress(body, headers.get(b"accept-encoding"))
            more += _lines(about_coding)
        if self.cors_headers is not None and b"origin" in headers:
            more += _lines(self.cors_headers(headers[b"origin"]))
        return _new(Response, (status, request.media_type.head % (len(body), request_id.encode()) + more, body))

    def _tell(self, request: Request, status: int | None, outcome: str, seconds: float) -> None:
        """Say how it went, in the log and in the metrics."""
        operation, caller = request.operation, request.caller
        name = kind = None
        if operation is not None:
            name, kind = operation.name and errors.loggable(operation.name), operation.kind_name
        teaches = outcome == "ok" and (self.documents.trusted is not None or (caller is not None and caller.reads_all))
        if not request.batch_size:  # whose requests were counted one by one
            self.metrics.request(name or "", kind or "", outcome, seconds, teaches=teaches)
        if logs.access.is_enabled:
            subject = caller.subject if caller else None
            event: dict[str, Any] = {
                "event": "request",
                "method": request.method,
                "path": request.path,
                "status": status,
                "ms": int(seconds * 100_000 + 0.5) / 100,  # to round takes five times as long
                "operation": name,
                "kind": kind,
                "caller": subject and errors.loggable(subject),
                "outcome": outcome,
            }
            if request.batch_size:
                event["requests"] = request.batch_size
            if request.user_errors:
                event["user_errors"] = request.user_errors[:_MAX_LOGGED_USER_ERRORS]
            logs.access.write(request.id, event)

    # --- what they ask

    async def _receive(self, request: Request) -> bytes:
        """A body that does not come at once.

        Raises:
            HTTPError: 413, it is larger than it may be, or says that it will be; 503, others needed its room.
            ClientDisconnectedError: it breaks off.
        """
        most = self.limits.max_body_bytes
        if b"content-encoding" in request.headers:
            most += compression.overhead(most)
        announced = request.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > most:
            _refuse_as_too_large(self.limits.max_body_bytes)
        self._in_flight.allow(request, self.limits.max_body_seconds)
        try:
            body = await self.uploads.receive(request.read, most)
        except UnavailableError as error:
            message = f"{error} Try again in a moment."
            raise HTTPError(503, "UNAVAILABLE", message, LATER, limits=["MAX_CONCURRENT_REQUESTS"]) from None
        if len(body) > most:
            _refuse_as_too_large(self.limits.max_body_bytes)
        return body

    # --- run

    def _execute(
        self,
        request: Request,
        operation: Operation,
        variables: dict[str, Any] | None,
        context: object,
        middleware: MiddlewareManager | None = None,
    ) -> Result | Awaitable[Result]:
        caller = request.caller
        is_known = caller is not None and caller.subject is not None
        if operation.kind is OperationType.MUTATION and variables and not (caller and caller.scopes):
            # The caller may change nothing, whatever the values are: rights come before them.
            variables = {name: value[:1] if isinstance(value, list) else value for name, value in variables.items()}
        compiles = is_known or _has_long_list(variables or {})
        room = request.room or Room(answers.bounds_of(caller))
        result = operation.execute(
            variables, context, middleware=middleware, compiles=compiles, owner=request.owner, room=room
        )
        if isinstance(result, Result) or operation.kind is OperationType.QUERY:
            return result
        request.is_interruptible = False
        return self._mutations.run(request, result, self._deadline(request))

    def _deadline(self, request: Request) -> deadline.RequestDeadline:
        """That of all mutations of the request, whose changes must have begun by then, and of what it reads."""
        if request.mutations_deadline is None:
            seconds_for_the_answer = self.limits.timeout_seconds * self.limits.answer_share
            request.mutations_deadline = deadline.RequestDeadline(request.deadline - seconds_for_the_answer)
        return request.mutations_deadline

    async def _answer_traced(
        self, request: Request, operation: Operation, asked: Parameters, context: object
    ) -> tuple[bytes, str]:
        """Run the operation for a router that asks for the trace of its fields."""
        trace = FieldTrace()
        with trace.recording():
            executed = self._execute(request, operation, asked.variables, context, trace.middleware)
            result = executed if isinstance(executed, Result) else await executed
        return self._write(request, operation, result, trace.get_results())

    async def _answer_batch(
        self, request: Request, batch: list[Parameters | HTTPError], caller: Caller
    ) -> tuple[bytes, str]:
        """The answers to several requests, in their order: queries run at the same time, mutations after one another.

        Limits count over all of them.
        """
        request.batch_size = len(batch)
        request.room = answers.BatchRoom(len(batch), answers.bounds_of(caller))
        token = limits.spent.set(limits.Spent())
        try:
            if any(_may_change(asked) for asked in batch):
                answered = await self._answer_in_turn(request, batch, caller)
            else:
                answered = await asyncio.gather(*(self._answer_one(request, asked, caller) for asked in batch))
        finally:
            limits.spent.reset(token)
        outcome = next((outcome for _, outcome in answered if outcome != "ok"), "ok")
        return b"[%b]" % b",".join([body for body, _ in answered]), outcome

    async def _answer_in_turn(
        self, request: Request, batch: list[Parameters | HTTPError], caller: Caller
    ) -> list[tuple[bytes, str]]:
        """The answers to mutations and queries, which have their time together once a connection was lost."""
        answered: list[tuple[bytes, str]] = []
        away_since = inf
        token = deadline.current.set(self._deadline(request))
        try:
            for asked in batch:
                answered.append(await self._answer_one(request, asked, caller, away_since=away_since))
                if answered[-1][1] == "UNAVAILABLE":
                    away_since = min(away_since, perf_counter())
        finally:
            deadline.current.reset(token)
        return answered

    async def _answer_one(
        self, request: Request, asked: Parameters | HTTPError, caller: Caller, *, away_since: float = inf
    ) -> tuple[bytes, str]:
        """The answer to one request of a batch, which waits little for a database that an earlier one found away."""
        began, operation = perf_counter(), None
        try:
            well_formed = _well_formed(asked)
            if request.place is None:  # the one before gave it up
                await self._admission.enter(request)
            operation = self.documents.prepare(request, well_formed)
            if away_since < inf:
                await self._admission.wait_for_the_database(_WAITED_SECONDS + perf_counter() - away_since)
            context = self.context(caller, request.id, request.user_errors)
            executed = self._execute(request, operation, well_formed.variables, context)
            result = executed if isinstance(executed, Result) else await executed
            body, outcome = self._write(request, operation, result)
        except HTTPError as error:
            _, body, outcome = self._refused(request, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other requests are answered
            body, outcome = _unexpected(request, error)
        name, kind = (operation.name or "", operation.kind_name) if operation else ("", "")
        teaches = outcome == "ok" and (self.documents.trusted is not None or caller.reads_all)
        self.metrics.request(name, kind, outcome, perf_counter() - began, teaches=teaches)
        return body, outcome

    # --- write

    def _write(
        self, request: Request, operation: Operation, result: Result, extensions: dict[str, Any] | None = None
    ) -> tuple[bytes, str]:
        """The body of the answer, and its outcome.

        Raises:
            HTTPError: the operation was not run.
        """
        found = result.errors
        if not found:
            return answers.write(result, [], extensions, request.room)
        if not result.executed:
            raise not_run(errors.about_variables(found), found)
        logged = errors.MAX_FIELDS_LOGGED
        if request.batch_size:  # whose log is bounded as that of one request
            request.failures += 1
            logged = _MAX_FIELDS_LOGGED_OF_BATCHES if request.failures <= _MAX_FAILURES_LOGGED else 0
        caller, changes = request.caller and request.caller.subject, operation.kind is OperationType.MUTATION
        told = errors.about_fields(found, request.id, caller, logged, changes=changes)
        return answers.write(result, told, extensions, request.room)

    def _refused(self, request: Request, error: HTTPError) -> tuple[int, bytes, str]:
        """The answer to a request that was not run; by GraphQL's own media type a failure, else one like any other."""
        for limit in error.limits:
            self.metrics.limit(limit)
        status = error.status or (400 if request.media_type is MediaType.GRAPHQL else 200)
        told = error.errors or [errors.refused(error.code, str(error))]
        return status, answers.refuse(told, request.room), error.code

    def _too_late(self, request: Request) -> HTTPError:
        if request.operation is None and not request.batch_size:
            return HTTPError(
                408, "TIMEOUT", f"The request body did not arrive within {self.limits.max_body_seconds:g} s."
            )
        status = 504 if request.media_type is MediaType.GRAPHQL else 200
        message = f"The request took longer than {self.limits.timeout_seconds:g} s (REQUEST_TIMEOUT)."
        if request.mutation is not None:
            message += " Its changes may already have been made; you can safely send it again."
        return HTTPError(status, "TIMEOUT", message, limits=["REQUEST_TIMEOUT"])


def _coding_of_json(headers: dict[bytes, bytes]) -> str | None:
    """The coding of a body that has to be JSON.

    Raises:
        HTTPError: 415, it is something else, or its coding is not known.
    """
    must_be_json(headers.get(b"content-type"))
    return compression.coding_of(headers[b"content-encoding"]) if b"content-encoding" in headers else None


def _from_url(request: Request) -> Parameters:
    if request.method not in {"GET", "HEAD"}:
        raise HTTPError(405, "METHOD_NOT_ALLOWED", "Use GET or POST.", [(b"allow", b"GET, HEAD, POST")])
    if not request.query_string and request.headers.get(b"upgrade", b"").lower() == b"websocket":
        raise HTTPError(400, "BAD_REQUEST", _NO_WEBSOCKETS)
    return parameters.from_query_string(request.query_string)


def _well_formed(asked: Parameters | HTTPError) -> Parameters:
    if isinstance(asked, HTTPError):
        raise asked
    return asked


def _may_change(asked: Parameters | HTTPError) -> bool:
    """Whether a request may be a mutation: only one that names it in its document is."""
    return not isinstance(asked, HTTPError) and (asked.query is None or "mutation" in asked.query)


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _has_long_list(variables: dict[str, Any]) -> bool:
    """Whether compiling a new operation costs less than running it without: it has many representations."""
    return any(isinstance(value, list) and len(value) > _SHORT_LIST for value in variables.values())


def _unexpected(request: Request, error: Exception) -> tuple[bytes, str]:
    _log.error("unexpected error", exc_info=error)
    return orjson.dumps({"errors": [errors.internal(request.id)]}), "INTERNAL"


def _take_interruption(request: Request, error: BaseException) -> None:
    """Go on after an interruption as if the task had never been cancelled; pass on a true cancellation."""
    if isinstance(error, asyncio.CancelledError):
        if request.interruption is None:
            raise error
        if request.task is not None:
            request.task.uncancel()


def _refuse_as_too_large(most: int) -> NoReturn:
    message = f"The body is larger than {most} bytes (MAX_BODY_BYTES)."
    raise HTTPError(413, "PAYLOAD_TOO_LARGE", message, limits=["MAX_BODY_BYTES"])
