"""Debian's nginx and HAProxy, in front of a service."""

import asyncio
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager, suppress

COMMANDS = {
    "nginx": lambda file: ["nginx", "-p", str(file.parent), "-c", str(file)],
    "haproxy": lambda file: ["haproxy", "-db", "-f", str(file)],
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@asynccontextmanager
async def proxy(name, configuration, folder, port):
    """The address of a proxy that listens on this port."""
    assert shutil.which(name), f"{name} is missing: .ci/run installs it"
    file = folder / "proxy.conf"
    file.write_text(configuration)
    process = subprocess.Popen(COMMANDS[name](file), cwd=folder)
    try:
        async with asyncio.timeout(10):
            while True:
                assert process.poll() is None
                with suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(10)
