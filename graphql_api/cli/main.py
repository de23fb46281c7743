"""The program: all commands under one name, and how an error ends it."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from graphql_api import __version__, interrupts
from graphql_api.cli import feed, files, gateways, maintenance, pages, serving

cli = typer.Typer(
    help="Maps users to their customers at payment gateways: a federated GraphQL subgraph.",
    epilog=(
        "Settings are environment variables. `gateway-tokens help configuration` explains them, and `gateway-tokens "
        "doctor` checks them."
    ),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (serving, maintenance, files, gateways, feed, pages):
    cli.add_typer(group.commands)


def main() -> NoReturn:
    """Run the command of this process's arguments; an expected error is one line for each cause."""
    try:
        status = cli(prog_name="gateway-tokens", standalone_mode=False)
        messages = ["interrupted"] if status == interrupts.INTERRUPTED else []
        if messages and interrupts.happened():
            status = interrupts.status()
        sys.stdout.flush()
    except BrokenPipeError:  # as Typer ends if the reader of the output, such as `head`, has gone before
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - what is not expected is raised again
        messages, status = _told(error)
        if interrupts.happened():
            status = interrupts.status()
    for message in messages:
        from graphql_api.domain.cards import redact_card_numbers

        print(f"gateway-tokens: {redact_card_numbers(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(status)


def _told(error: Exception) -> tuple[Sequence[str], int]:
    """The lines about an error and the exit status; a bug is raised again."""
    if isinstance(error, typer.Abort):
        return ["interrupted"], interrupts.INTERRUPTED
    if isinstance(error, typer.TyperException):
        _put_in_plain_words(error)
        context: Any = getattr(error, "ctx", None)
        hint = f" ({context.command_path} --help)" if context else ""
        return [error.format_message() + hint], error.exit_code

    from graphql_api.domain.errors import BadInputError, InputError, UnavailableError
    from graphql_api.settings import ConfigurationError

    match error:
        case ConfigurationError():
            return error.problems, 2
        case BadInputError():
            return [str(error)], 2
        case OSError():
            return [f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"], 1
        case InputError() | UnavailableError():
            return [str(error)], 1
        case _:
            raise error


def _put_in_plain_words(error: typer.TyperException) -> None:
    from pydantic import ValidationError

    from graphql_api.settings.values import expected

    if isinstance(error.__cause__, ValidationError):  # Typer passes its words on as they are
        error.message = expected(error.__cause__.errors(include_url=False)[0])


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if asked:
        print(__version__)
        raise typer.Exit


@cli.callback()
def options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback has read it
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options without a command."""
    if context.invoked_subcommand is None:
        print(context.get_help())
