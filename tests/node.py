"""Node for the tests that need it: a folder's pinned packages, and scripts that run while a test does."""

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


def install(folder: Path) -> Path:
    """The folder, with the packages of its package.json installed; npm runs only where they are not there yet."""
    if shutil.which("npm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Node is missing, and under CI=true nothing may be skipped for that.")
        pytest.skip("Node is missing.")
    pinned = folder / "package.json"
    with pinned.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = folder / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < pinned.stat().st_mtime:
            quietly = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
            how = ["ci"] if (folder / "package-lock.json").exists() else ["install", "--no-package-lock"]
            npm = ["npm", *how, *quietly]
            subprocess.run(npm, cwd=folder, check=True)
            installed.touch()
    return folder


@asynccontextmanager
async def running(script: Path, *arguments: str | Path, **environment: str) -> AsyncGenerator[str]:
    """A script of Node that serves meanwhile; given is the address that it prints when it listens."""
    async with serving("node", script, *arguments, **environment) as address:
        yield address


@asynccontextmanager
async def serving(*command: str | Path, **environment: str) -> AsyncGenerator[str]:
    """A server that runs meanwhile; given is the address that it prints when it listens."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "NODE_ENV": "production", **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    address = await _address(process.stdout)
    rest = asyncio.create_task(process.stdout.read())
    try:
        yield address
    finally:
        process.terminate()
        await rest
        await process.wait()


async def _address(output: asyncio.StreamReader) -> str:
    printed = []
    async for line in output:
        printed.append(line.decode())
        if found := re.search(r"http://127\.0\.0\.1:\d+", printed[-1]):
            return found[0]
    raise AssertionError(f"It ended without listening:\n{''.join(printed)}")
