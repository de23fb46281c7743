"""Where a process begins: the console script, and `python -m graphql_api`, which is the same."""

import sys

from graphql_api import interrupts


def main() -> None:
    """Run the command line. Ctrl-C is one line from the first import to the exit."""
    try:
        interrupts.listen()
        from graphql_api import cli  # noqa: PLC0415 - this takes long enough for Ctrl-C to be pressed

        cli.main()
    except KeyboardInterrupt:
        print("gateway-tokens: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(interrupts.INTERRUPTED)
    finally:
        interrupts.ignore()


if __name__ == "__main__":
    main()
