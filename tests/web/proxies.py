"""Debian's nginx and HAProxy, in front of a service."""

import asyncio
import shutil
import subprocess
from contextlib import asynccontextmanager, suppress

from tests.ports import free_port

NGINX = """
daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {http}
  server {{
    listen 127.0.0.1:{port};
    {server}
  }}
}}
"""
HAPROXY = """
global
  log stderr local0 emerg
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  option http-keep-alive
frontend in
  bind 127.0.0.1:{port}
  {frontend}
  default_backend gateway_tokens
{backend}
"""
PROXIES = {
    "nginx": (NGINX, lambda file: ["nginx", "-p", str(file.parent), "-c", str(file)]),
    "haproxy": (HAPROXY, lambda file: ["haproxy", "-db", "-f", str(file)]),
}


@asynccontextmanager
async def proxy(name, folder, **parts):
    """The address of a proxy with these parts in its configuration."""
    assert shutil.which(name), f"{name} is missing: .ci/run installs it"
    template, command = PROXIES[name]
    port, file = free_port(), folder / "proxy.conf"
    file.write_text(template.format(port=port, **parts))
    process = subprocess.Popen(command(file), cwd=folder)
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
