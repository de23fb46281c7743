"""Where a process begins: the console script, and `python -m graphql_api`, which is the same."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is quiet from the first import on."""
    try:
        from graphql_api import cli  # noqa: PLC0415 - this takes long enough for somebody to change their mind

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
