"""A balancer as small as can be: it asks `/readyz` and sends each request, and its answer, whole."""

import asyncio
from contextlib import asynccontextmanager, suppress

from tests.faults.http import Http, close

_ASKS_EVERY = 0.5


class Balancer:
    """Half of the requests go over connections that are kept, half over new ones."""

    def __init__(self, services):
        self._ready = dict.fromkeys(services, True)
        self._kept = {service: [] for service in services}
        self._turns = 0
        self._serving = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, *services):
        balancer = cls(services)
        server = await asyncio.start_server(balancer._serve, "127.0.0.1", 0)
        asking = asyncio.create_task(balancer._ask())
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/graphql"
        asking.cancel()
        server.close()
        await asyncio.gather(*balancer._serving, asking, return_exceptions=True)
        for kept in balancer._kept.values():
            await asyncio.gather(*(close(writer) for _, writer in kept))

    async def _ask(self):
        async with Http().open() as http:
            while True:
                for service in self._ready:
                    self._ready[service] = await self._is_ready(http, service)
                await asyncio.sleep(_ASKS_EVERY)

    @staticmethod
    async def _is_ready(http, service):
        try:
            return (await http.get(f"{service.url}/readyz"))[0] == 200
        except (OSError, EOFError):
            return False

    async def _serve(self, reader, writer):
        self._serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(await self._passed_on(await _message(reader)))
        await close(writer)

    async def _passed_on(self, request):
        self._turns += 1
        ready = [service for service, is_ready in self._ready.items() if is_ready]
        service = ready[self._turns % len(ready)]
        kept = self._kept[service]
        is_kept = kept and self._turns % 4 < 2
        reader, writer = kept.pop() if is_kept else await asyncio.open_connection(*service.address)
        writer.write(request)
        answer = await _message(reader)
        if b"connection: close" in answer.lower() or len(kept) > 20:
            await close(writer)
        else:
            kept.append((reader, writer))
        return answer


async def _message(reader):
    """A request or an answer: a head, and as long a body as it says."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)
