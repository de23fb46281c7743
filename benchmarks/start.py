"""How long the service takes from its command to the first 200 of /readyz, on a database that is migrated."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from graphql_api.storage.embedded import embedded_postgres

PORT = 8765


def start(database_url):
    """Seconds until it is ready, and seconds of processor time until it has ended again."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "graphql_api", "serve", "--port", str(PORT)]
    process = subprocess.Popen(
        command, env={**os.environ, "DATABASE_URL": database_url, "LOG_LEVEL": "warning"}, stdout=subprocess.DEVNULL
    )
    while not is_ready():
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGINT)
    _, _, used = os.wait4(process.pid, 0)
    return seconds, used.ru_utime + used.ru_stime


def is_ready():
    try:
        with urlopen(f"http://127.0.0.1:{PORT}/readyz") as answer:
            return answer.status == 200  # noqa: PLR2004
    except URLError:
        return False


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder)) as url:
        start(url)  # migrates, and has the modules compiled
        found = [start(url) for _ in range(rounds)]
    print(f"ready after {min(seconds for seconds, _ in found):.2f} s at best of {rounds}")
    print(f"processor time {min(used for _, used in found):.2f} s")


if __name__ == "__main__":
    main()
