"""The command that shows the documentation, which the wheel and the image contain."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from graphql_api.cli.process import UsageError

commands = typer.Typer()
_PACKAGE = Path(__file__).parents[1]


@commands.command("help")
def show(
    page: Annotated[
        str | None,
        typer.Argument(help="The page, such as configuration. Without it, list the pages.", metavar="PAGE"),
    ] = None,
) -> None:
    """Show a page of the documentation for this version."""
    pages = _pages()
    if page is None:
        for name, file in pages.items():
            with file.open(encoding="utf-8") as lines:
                print(f"{name:<16}{next(lines).lstrip('# ').rstrip()}")
    elif (name := Path(page.lower()).name.removesuffix(".md")) not in pages:
        alike = get_close_matches(name, pages, n=1)
        meant = f" Did you mean {alike[0]}?" if alike else ""
        raise UsageError(f"There is no page '{page}'.{meant} Run `gateway-tokens help` to list the pages.")
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(pages[name].read_text(encoding="utf-8"), hyperlinks=False))
    else:
        print(pages[name].read_text(encoding="utf-8"), end="")


def _pages() -> dict[str, Path]:
    """The pages by name. A wheel contains a copy of the folder; a checkout and the image have it beside the package."""
    copy = _PACKAGE / "docs"
    folder = copy if copy.is_dir() else _PACKAGE.parent / "docs"
    files = [*folder.glob("*.md"), _PACKAGE / "web" / "errors.md"]
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}
