"""Completion as a person gets it: installed by the command itself, then asked for with the tab key of a real shell."""

import os
import pty
import shutil
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.until import until_sync

SHELLS = ["bash", "zsh", "fish"]
SECONDS = 60


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command, environment):
        self._terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (24, 120))
        controlling = ["setsid", "--ctty", *command]
        self._process = subprocess.Popen(controlling, stdin=end, stdout=end, stderr=end, env=environment)
        os.close(end)
        os.set_blocking(self._terminal, False)

    def type(self, text):
        os.write(self._terminal, text.encode())

    def shows(self, text):
        """Wait until this is shown."""
        shown = bytearray()

        def is_shown():
            with suppress(BlockingIOError):
                shown.extend(os.read(self._terminal, 100_000))
            return text.encode() in shown

        until_sync(is_shown, f"the terminal shows {text}, after {shown}")

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=SHELLS)
def shell(request, tmp_path):
    """A shell into which completion was installed, in a home that had nothing in it."""
    if shutil.which(request.param) is None:
        missing = f"{request.param} is missing: `apt-get install {request.param}`."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    commands = Path(sys.executable).parent
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{commands}:{os.environ['PATH']}",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }
    install = [request.param, "-c", "gateway-tokens --install-completion; true"]  # which shell it is, its parent says
    installed = subprocess.run(install, env=environment, capture_output=True, text=True, check=True)
    assert f"{request.param} completion installed" in installed.stdout
    terminal = Terminal([request.param, "-i"], environment)
    terminal.type("echo rea''dy\n")
    terminal.shows("ready")
    if request.param == "zsh":  # it loads a function at the first tab, and asks it from then on
        terminal.type("gateway-tokens \t\x15")
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("typed", "completed"), [("gateway-tokens mig", "migrate"), ("gateway-tokens reconcile --exp", "--exported-at")]
)
def test_the_tab_key_completes(shell, typed, completed):
    shell.type(f"{typed}\t")
    shell.shows(completed)
