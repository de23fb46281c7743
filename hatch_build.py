"""Adds the documentation to the wheel, and GraphiQL if the checkout has none and npm is installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GraphiQLBuildHook(BuildHookInterface[Any]):
    """The hook that `pip wheel .` and `python -m build` call before they collect files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build GraphiQL if it is missing. An editable installation takes what `make graphiql` builds."""
        root = Path(self.root)
        if self.target_name == "wheel":
            pages = {str(page): f"graphql_api/docs/{page.name}" for page in root.glob("docs/*.md")}
            build_data["force_include"].update(pages)
        is_built = (root / "graphql_api/web/static/graphiql/index.html").exists()
        if version == "editable" or is_built or not (root / "graphiql/package.json").exists():
            return
        npm = shutil.which("npm")
        try:
            if npm is None:
                raise FileNotFoundError("npm is not installed")
            for command in (("ci", "--no-audit", "--no-fund", "--fetch-retries=1"), ("run", "build")):
                subprocess.run([npm, *command, "--loglevel=error"], cwd=root / "graphiql", check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(
                f"GraphiQL is left out ({error}). To include it, install Node 20.19 and build again."
            )
