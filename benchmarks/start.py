"""How long the service takes from its command to the first 200 of /readyz, on a database that is migrated.

And how much longer an operation takes when it comes for the first time than later.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from graphql_api.embedded import embedded_postgres

PORT = 8765


def start(database_url):
    """Seconds until it is ready, seconds of processor time until it has ended again, and what `coldness` says."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "graphql_api", "serve", "--port", str(PORT)]
    process = subprocess.Popen(
        command, env={**os.environ, "DATABASE_URL": database_url, "LOG_LEVEL": "warning"}, stdout=subprocess.DEVNULL
    )
    while not is_ready():
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    cold = coldness()
    process.send_signal(signal.SIGINT)
    _, _, used = os.wait4(process.pid, 0)
    return seconds, used.ru_utime + used.ru_stime, cold


def coldness():
    """The milliseconds by which the first time of an operation is slower than later ones; the median of many."""
    differences = []
    for number in range(30):
        query = (
            "query Users($users: [_Any!]!) { _entities(representations: $users) { ... on User { gatewayTokens {"
            f" a{number}: id gateway gatewayCustomerId isActive createdAt updatedAt version }} }} }} }}"
        )
        users = [{"__typename": "User", "id": f"user-{user}"} for user in range(50)]
        body = json.dumps({"query": query, "variables": {"users": users}}).encode()
        request = Request(f"http://127.0.0.1:{PORT}/graphql", body, {"Content-Type": "application/json"})
        first, *others = [took(request) for _ in range(6)]
        differences.append(first - statistics.median(others))
    return statistics.median(differences) * 1000


def took(request):
    began = time.perf_counter()
    with urlopen(request) as answer:
        answer.read()
    return time.perf_counter() - began


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
    print(f"ready after {min(seconds for seconds, _, _ in found):.2f} s at best of {rounds}")
    print(f"processor time {min(used for _, used, _ in found):.2f} s, some requests included")
    print(
        f"an operation's first time takes {statistics.median(cold for *_, cold in found):.1f} ms more than later ones"
    )


if __name__ == "__main__":
    main()
