"""Asks a gateway's API: at a rate, with retries, and only for as long as its answers make sense.

It does so over aiohttp: with sixteen connections, httpx takes twenty times its CPU for each request.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from math import inf
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
import orjson
from yarl import URL

from graphql_api import network_errors
from graphql_api.gateway_apis.answers import Answer, APIRequest, DeletionPage, GatewayAPI, Reply, Verdict, unexpected
from graphql_api.gateway_apis.keys import GatewayKey
from graphql_api.retry_after import retry_after_seconds

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

MAX_OUTAGES: Final = 10
"""Requests in a row that failed after all retries; then the run stops."""
MAX_THROTTLED: Final = 5
"""Requests in a row that were rate-limited; then the run stops."""
_PAUSES = (1.0, 4.0)  # seconds before each retry after an outage
_TIMEOUT = aiohttp.ClientTimeout(total=10.0, sock_connect=5.0)  # seconds; the total is until the last byte has come
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_PAUSE_SECONDS = 2.0  # after 429 without a Retry-After
_MAX_PAUSE_SECONDS = 300.0
_CATCH_UP_SECONDS = 0.25
_MIN_RATE = 0.1
_RECOVERY = 0.001  # of the rate that was set, with each answer
# What would name another path than that of a customer, whatever a server makes of an escape.
_NO_ID = re.compile(r"\.+|.*[/\\%?#].*", re.DOTALL)


class APIResponse(NamedTuple):
    """An HTTP response; a body that is too large is cut after that."""

    status: int
    retry_after: str | None
    content: bytes


Send = Callable[[str, APIRequest], Awaitable[APIResponse]]
"""Sends a request by this method. Raises `aiohttp.ClientError` or `TimeoutError` if no whole response comes."""


class StoppedError(Exception):
    """It makes no sense to ask on; the message says why. `answer` is the request's, if it is an outage."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class Pace:
    """At most `rate` requests a second. What a pause held up is made up for, but no more than a quarter of a second."""

    def __init__(self, rate: float, clock: Clock = monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self.rate = rate
        self.clock = clock
        self.sleep = sleep
        self._max_rate = rate
        self._next = self._resumes = clock()

    async def turn(self) -> float:
        """Wait until it is this request's turn. Returns the time."""
        while True:
            now = self.clock()
            at = max(self._next, self._resumes, now - _CATCH_UP_SECONDS)
            self._next = at + 1 / self.rate
            if at > now:
                await self.sleep(at - now)
            if (now := self.clock()) >= self._resumes:
                return now

    def slow_down(self, seconds: float) -> None:
        """Ask nothing for some seconds, and then half as often."""
        self.rate = max(self.rate / 2, _MIN_RATE)
        self._next = self._resumes = self.clock() + seconds

    def recover(self) -> None:
        """Ask a little more often, up to what was set."""
        self.rate = min(self.rate + self._max_rate * _RECOVERY, self._max_rate)


class GatewayClient:
    """Asks one gateway with one key."""

    def __init__(self, api: GatewayAPI, send: Send, pace: Pace) -> None:
        self.api = api
        self.pace = pace
        self.throttled = 0
        self._request = send
        self._outages = 0
        self._throttled_in_a_row = 0
        self._slowed_at = -inf

    @classmethod
    @asynccontextmanager
    async def open(cls, key: GatewayKey, pace: Pace) -> "AsyncGenerator[GatewayClient]":
        """Keep connections open meanwhile. The key is in the headers of requests and nowhere else."""
        base_url = key.base_url or key.api.base_url
        async with aiohttp.ClientSession(
            headers=dict(key.api.headers(key.secret.get_secret_value())),
            timeout=_TIMEOUT,
            connector=aiohttp.TCPConnector(ssl=httpx.create_ssl_context()),  # of the authorities that all else trusts
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy(base_url),
        ) as session:
            yield cls(key.api, partial(_request, session, base_url), pace)

    async def customer(self, customer: str, until: float = inf) -> Answer:
        """Ask for a customer.

        Args:
            customer: its identifier
            until: the clock's time from which on it must not be asked any more

        Raises:
            StoppedError: asking on makes no sense.
        """
        return await self._ask("GET", customer, self.api.read_customer, until)

    async def delete(self, customer: str) -> Answer:
        """Delete a customer; raises as `customer` does."""
        return await self._ask("DELETE", customer, self.api.read_deleted, inf)

    async def knows_one(self, customers: Iterable[str]) -> bool:
        """Whether one of these customers exists or was deleted there: only the right account says so.

        Raises:
            StoppedError: the gateway does not say so of any, and does not answer for all; or as for `customer`.
        """
        outage = None
        for customer in customers:
            answer = await self.customer(customer)
            if answer.verdict in {Verdict.EXISTS, Verdict.GONE}:
                return True
            if answer.verdict is not Verdict.UNKNOWN:
                outage = answer
        if outage:
            raise StoppedError(f"{self.api.name} did not answer; the last request got {outage.detail}")
        return False

    async def deletions(self, since: datetime, after: str | None) -> DeletionPage:
        """A page of the gateway's list of deletions since this time; raises as `customer` does."""
        pages: list[DeletionPage] = []

        def read(reply: Reply) -> Answer:
            page = self.api.read_deletions(reply)
            if isinstance(page, Answer):
                return page
            pages.append(page)
            return Answer(Verdict.EXISTS)

        answer = await self._send("GET", self.api.deletions(since, after), read, inf)
        if not pages:
            raise StoppedError(f"{self.api.name}'s list of deletions cannot be read: {answer.detail}")
        return pages[0]

    async def probe(self) -> None:
        """Ask for what the key has to be allowed to read.

        Raises:
            StoppedError: the gateway does not answer, or not with this key.
        """
        for request in self.api.probes():
            answer = await self._send("GET", request, _any_json, inf)
            if answer.verdict is not Verdict.EXISTS:
                raise StoppedError(f"{self.api.name} cannot be asked: {answer.detail}", answer)

    async def _ask(self, method: str, customer: str, read: Callable[[Reply, str], Answer], until: float) -> Answer:
        if _NO_ID.fullmatch(customer):
            return Answer(Verdict.UNKNOWN, sent=self.pace.clock())
        return await self._send(method, self.api.customer(customer), partial(_read_with, read, customer), until)

    async def _send(self, method: str, request: APIRequest, read: Callable[[Reply], Answer], until: float) -> Answer:
        """Send a request, again if it came too soon or failed."""
        pauses = iter(_PAUSES)
        while True:
            sent = await self.pace.turn()
            if sent >= until:
                return Answer(Verdict.LATE)
            answer = (await self._send_once(method, request, read))._replace(sent=sent)
            match answer.verdict:
                case Verdict.REFUSED:
                    raise StoppedError(
                        f"{self.api.name} refuses the key ({answer.detail}). It needs {self.api.permissions}"
                    )
                case Verdict.WRONG_MODE:
                    raise StoppedError(
                        f"{self.api.name} answers for the other mode: the key is for test mode and the customers are "
                        "live, or the other way round. Check the key and TEST_GATEWAYS"
                    )
                case Verdict.THROTTLED:
                    self._slow_down(sent, answer.retry_after)
                case Verdict.OUTAGE:
                    pause = next(pauses, None)
                    if pause is None:
                        return self._fail(answer)
                    await self.pace.sleep(pause)
                case _:
                    self._outages = self._throttled_in_a_row = 0
                    self.pace.recover()
                    return answer

    def _slow_down(self, sent: float, seconds: float | None) -> None:
        self.throttled += 1
        if sent < self._slowed_at:
            return  # it was sent before the others were told to wait
        self._throttled_in_a_row += 1
        if self._throttled_in_a_row >= MAX_THROTTLED:
            raise StoppedError(
                f"{self.api.name} answered {MAX_THROTTLED} times in a row that requests come too often. "
                "Use a lower --rate"
            )
        seconds = _PAUSE_SECONDS if seconds is None else seconds
        if seconds > _MAX_PAUSE_SECONDS:
            raise StoppedError(f"{self.api.name} asks to wait for {seconds:,.0f} seconds")
        self.pace.slow_down(seconds)
        self._slowed_at = self.pace.clock()

    def _fail(self, answer: Answer) -> Answer:
        self._outages += 1
        if self._outages >= MAX_OUTAGES:
            raise StoppedError(
                f"{self.api.name} did not answer {MAX_OUTAGES} requests in a row; the last one got {answer.detail}",
                answer,
            )
        return answer

    async def _send_once(self, method: str, request: APIRequest, read: Callable[[Reply], Answer]) -> Answer:
        try:
            status, retry_after, content = await self._request(method, request)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Answer(Verdict.OUTAGE, f"no answer ({network_errors.reason(error)})", has_response=False)
        if len(content) > _MAX_ANSWER_BYTES:
            return Answer(Verdict.OUTAGE, f"an answer of more than {_MAX_ANSWER_BYTES:,} bytes")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return Answer(Verdict.REFUSED, f"status {status}")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return Answer(Verdict.THROTTLED, retry_after=retry_after_seconds(retry_after))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Answer(Verdict.OUTAGE, f"status {status}")
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = None
        return read(Reply(status, body))


def _proxy(base_url: str) -> str | None:
    """The proxy for this address by `HTTPS_PROXY` and `NO_PROXY`. aiohttp would look for it each time."""
    url = urlsplit(base_url)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


async def _request(session: aiohttp.ClientSession, base_url: str, method: str, request: APIRequest) -> APIResponse:
    query = f"?{urlencode(request.query)}" if request.query else ""
    url = URL(f"{base_url.rstrip('/')}{request.path}{query}", encoded=True)
    async with session.request(method, url, allow_redirects=False) as response:
        content = bytearray()
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > _MAX_ANSWER_BYTES:
                break
        return APIResponse(response.status, response.headers.get("retry-after"), bytes(content))


def _read_with(read: Callable[[Reply, str], Answer], customer: str, reply: Reply) -> Answer:
    return read(reply, customer)


def _any_json(reply: Reply) -> Answer:
    if reply.status == HTTPStatus.OK and isinstance(reply.body, dict):
        return Answer(Verdict.EXISTS)
    return unexpected(reply)
