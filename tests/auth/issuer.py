"""An issuer of access tokens that writes whatever a test wants into them, and the server that publishes its keys."""

import asyncio
import json
from base64 import urlsafe_b64encode
from time import time

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

SECRET = "a secret of thirty-two bytes or more"
SECRET_KEY = OctKey.import_key(SECRET)
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"})
KEYS = {
    **{f"{family}{bits}": RSA for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ECKey.generate_key("P-256", {"kid": "p-256"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "p-384"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "p-521"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed25519"}),
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "ed25519-by-its-own-name"}),
    "Ed448": OKPKey.generate_key("Ed448", {"kid": "ed448"}),
}


def new_key(kid):
    return ECKey.generate_key("P-256", {"kid": kid})


def key_set(*keys):
    """What a key server publishes; a dict stands as it is."""
    return json.dumps({"keys": [key if isinstance(key, dict) else key.as_dict() for key in keys]}).encode()


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def token(key=SECRET_KEY, algorithm="HS256", *, header=None, raw_header=None, payload=None, **claims):
    """A signed token. A claim or header that is given as `...` is left out."""
    head = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid or ..., **(header or {})}
    body = {"sub": "user-1", "exp": int(time()) + 600, **claims}
    signed = b".".join([part(_present(head) if raw_header is None else raw_header), part(payload or _present(body))])
    return signed + b"." + part(JWSRegistry.algorithms[algorithm].sign(signed, key))


def es256(key, **claims):
    return token(key, "ES256", **claims)


def bearer(text):
    return b"Bearer " + text


def _present(values):
    return {name: value for name, value in values.items() if value is not ...}


class KeyServer:
    """Publishes keys on a loopback port and counts how often they are fetched."""

    def __init__(self):
        self.answer = key_set()
        self.status = "200 OK"
        self.delay = 0.0  # seconds before the answer
        self.pause = 0.0  # seconds after each of its bytes
        self.fetches = 0
        self.paths = []
        self.port = 0
        self._server = None
        self._busy = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/keys"

    def publish(self, *keys):
        self.answer = key_set(*keys)

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in self._busy:
            task.cancel()
        await self._server.wait_closed()

    def _serve(self, reader, writer):
        task = asyncio.create_task(self._answer(reader, writer))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _answer(self, reader, writer):
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            self.paths.append(request.split(b" ")[1])
            answer, status = self.answer, self.status
            await asyncio.sleep(self.delay)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n".encode())
            for piece in [bytes([byte]) for byte in answer] if self.pause else [answer]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(self.pause)
        finally:
            writer.close()
