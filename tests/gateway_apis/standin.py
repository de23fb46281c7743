"""Gateways that answer as Stripe and Mollie say theirs do, and as badly as is wanted.

Each is a function from a request to a response: for a client within this process, or behind a server of its own.
"""

import asyncio
import json
import threading
from collections import Counter, deque
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

LIVE, TEST, DELETED = "live", "test", "deleted"
KEY = "rk_live_thisIsTheKeyOfTheTests"


class Clock:
    """A clock that sleeping moves, and nothing else."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class StandIn:
    """What gateways have in common: customers by id, and faults that are answered first.

    A fault is a status, with seconds for a `Retry-After` if it is a pair; `"timeout"`, `"cut"` or `"html"`.
    """

    def __init__(self, key=KEY):
        self.key = key
        self.mode = LIVE
        self.customers = {}
        self.faults = deque()
        self.asked = []
        self.authorized_by = set()

    def respond(self, method, target, headers):
        """The status, the headers and the body of the answer."""
        url = urlsplit(target)
        self.authorized_by.add(headers.get("authorization"))
        self.asked.append((method, unquote(url.path.rpartition("/")[2])))
        fault = self.faults.popleft() if self.faults else None
        match fault:
            case None | "cut":
                pass
            case "timeout":
                raise TimeoutError
            case "html":
                return 200, {}, b"<html>Please wait</html>"
            case (429, seconds):
                return 429, {"retry-after": str(seconds)}, b"{}"
            case status:
                return status, {}, json.dumps({"error": {"message": f"key {self.key}"}, "status": status}).encode()
        if headers.get("authorization") != f"Bearer {self.key}":
            return 401, {}, json.dumps({"error": {"message": f"Invalid API Key provided: {self.key}"}}).encode()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        status, body = self.answer(method, unquote(url.path), query)
        encoded = json.dumps(body).encode() if body is not None else b""
        return status, {}, encoded[:-9] if fault == "cut" else encoded

    async def handle(self, request):
        """The same without a socket."""
        status, headers, body = self.respond(request.method, str(request.url), request.headers)
        await asyncio.sleep(0)
        return httpx.Response(status, headers=headers, content=body)

    def count(self, method="GET"):
        """How often each customer was asked for."""
        return Counter(customer for asked, customer in self.asked if asked == method)


class Stripe(StandIn):
    def __init__(self, key=KEY):
        super().__init__(key)
        self.events = []

    def delete(self, customer, at=None):
        """Somebody deletes a customer; the newest event comes first."""
        self.customers[customer] = DELETED
        created = int((at or datetime.now(UTC)).timestamp())
        event = {"id": f"evt_{len(self.events)}", "object": "event", "type": "customer.deleted", "created": created}
        data = {"object": {"id": customer, "object": "customer"}}
        self.events.insert(0, {**event, "livemode": self.mode == LIVE, "data": data})

    def answer(self, method, path, query):
        if path == "/v1/events":
            return 200, self._events(query)
        if path == "/v1/customers":
            return 200, {"object": "list", "data": [], "has_more": False}
        customer = path.removeprefix("/v1/customers/")
        state = self.customers.get(customer)
        if method == "DELETE" and state == self.mode:
            self.delete(customer)
            return 200, {"id": customer, "object": "customer", "deleted": True}
        if state == DELETED and method == "GET":
            return 200, {"id": customer, "object": "customer", "deleted": True}
        if state == self.mode:
            return 200, {"id": customer, "object": "customer", "livemode": self.mode == LIVE}
        message = f"No such customer: '{customer}'"
        if state not in {None, DELETED}:
            message += f"; a similar object exists in {state} mode, but a {self.mode} mode key was used."
        return 404, {"error": {"code": "resource_missing", "message": message, "type": "invalid_request_error"}}

    def _events(self, query):
        found = [each for each in self.events if each["created"] >= int(query.get("created[gte]", 0))]
        if "starting_after" in query:
            ids = [each["id"] for each in found]
            found = found[ids.index(query["starting_after"]) + 1 :]
        limit = int(query["limit"])
        return {"object": "list", "data": found[:limit], "has_more": len(found) > limit}


class Mollie(StandIn):
    def delete(self, customer):
        self.customers[customer] = DELETED

    def answer(self, method, path, query):
        if path == "/v2/customers":
            return 200, {"count": 0, "_embedded": {"customers": []}}
        customer = path.removeprefix("/v2/customers/")
        state = self.customers.get(customer)
        if state == DELETED:
            return 410, {"status": 410, "title": "Gone", "detail": "The customer is no longer available"}
        if state != self.mode:
            return 404, {"status": 404, "title": "Not Found", "detail": f"No customer exists with token {customer}."}
        if method == "DELETE":
            self.delete(customer)
            return 204, None
        return 200, {"resource": "customer", "id": customer, "mode": self.mode}


class Acme(StandIn):
    """The made-up gateway of docs/checks.md."""

    def __init__(self, key):
        super().__init__(key)
        self.deletions = []

    def delete(self, customer, at=None):
        self.customers[customer] = DELETED
        self.deletions.append({"customer": customer, "at": int((at or datetime.now(UTC)).timestamp())})

    def answer(self, method, path, query):
        if path == "/customers":
            return 200, {"customers": []}
        if path == "/deletions":
            found = [each for each in self.deletions if each["at"] >= int(query["since"])]
            begin = int(query["page"]) - 1
            is_last = begin + 1 >= len(found)
            return 200, {"deletions": found[begin : begin + 1], "next": None if is_last else str(begin + 2)}
        customer = path.removeprefix("/customers/")
        state = self.customers.get(customer)
        if state == DELETED:
            return 410, {"error": "deleted"}
        if state is None:
            return 404, {"error": "unknown"}
        if method == "DELETE":
            self.delete(customer)
            return 204, None
        return 200, {"id": customer, "test": state == TEST}


@contextmanager
def serving(standin):
    """The address of a server that answers as this stand-in does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = standin.respond(self.command, self.path, headers)
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_DELETE = do_GET  # noqa: N815 - the library calls it so

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            """A client that was killed does not read its answer."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
