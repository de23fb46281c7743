"""Where a process begins: the console script, and `python -m graphql_api`, which is the same."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C is one line from the first import to the exit."""
    try:
        _listen_and_run()
    except KeyboardInterrupt:
        print("gateway-tokens: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _listen_and_run() -> None:
    from graphql_api import interrupts  # noqa: PLC0415 - even what this imports takes milliseconds

    interrupts.listen()
    try:
        from graphql_api.cli import main as cli  # noqa: PLC0415 - this takes long enough for Ctrl-C to be pressed

        cli.main()
    finally:
        interrupts.ignore()


if __name__ == "__main__":
    main()
