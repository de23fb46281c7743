"""Many connections, each of which asks again as soon as it has an answer; a process of its own, which prints JSON."""

import asyncio
import json
import sys
import time

import httptools
import uvloop

from tests.faults.http import request

QUERY = """query ($user: _Any!) { _entities(representations: [$user]) {
  ... on User { gatewayTokens { gateway gatewayCustomerId isActive } } } }"""


class Crowd:
    def __init__(self):
        self.counts = False
        self.goes_on = True
        self.served = self.refused = self.other = 0
        self.seconds = []


class Connection(asyncio.Protocol):
    def __init__(self, crowd, number):
        self._crowd = crowd
        variables = {"user": {"__typename": "User", "id": f"user-{number % 100}"}}
        body = json.dumps({"query": QUERY, "variables": variables}).encode()
        self._request = request("POST", "/graphql", body)

    def connection_made(self, transport):
        self._transport = transport

    def ask(self):
        self._parser, self._headers, self._asked = httptools.HttpResponseParser(self), {}, time.perf_counter()
        self._transport.write(self._request)

    def on_header(self, name, value):
        self._headers[name.lower()] = value

    def on_message_complete(self):
        crowd = self._crowd
        if crowd.counts:
            crowd.seconds.append(time.perf_counter() - self._asked)
            status = self._parser.get_status_code()
            crowd.served += status == 200
            crowd.refused += status == 503 and b"retry-after" in self._headers
            crowd.other += status != 200 and not (status == 503 and b"retry-after" in self._headers)
        if crowd.goes_on:
            self.ask()

    def data_received(self, data):
        self._parser.feed_data(data)

    def connection_lost(self, _error):
        self._crowd.other += self._crowd.goes_on


async def main(port, connections, seconds):
    crowd, loop = Crowd(), asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda number=number: Connection(crowd, number), "127.0.0.1", port))[1]
        for number in range(connections)
    ]
    for connection in made:
        connection.ask()
    await asyncio.sleep(2)
    crowd.counts = True
    await asyncio.sleep(seconds)
    crowd.counts = crowd.goes_on = False
    for connection in made:
        connection._transport.close()
    latest = sorted(crowd.seconds)[int(len(crowd.seconds) * 0.99)]
    figures = {"rate": crowd.served / seconds, "refused": crowd.refused, "other": crowd.other, "p99": latest}
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
