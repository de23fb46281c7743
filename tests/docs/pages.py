"""The documentation as tests read it: its pages, their fenced blocks, and what belongs together."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("graphql_api/**/*.md")),
    ROOT / "benchmarks/README.md",
]
_FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*) ?(?P<words>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: what language it is in, and the words behind that, which say how it is meant."""

    place: str
    language: str
    words: str
    text: str


@dataclass
class Example:
    """A block that something is done with, the variables that go along, and the answer that is shown, if any."""

    block: Block
    variables: str | None = None
    answer: Block | None = None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCED.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(f"{name_of(page)}:{line}", found["language"], found["words"], dedent(found["text"]))


def examples(page: Path) -> list[Example]:
    found: list[Example] = []
    for block in blocks(page):
        if block.language == "json" and block.words == "variables":
            found[-1].variables = block.text
        elif block.language in {"json", "text"} and not block.words:
            assert found, f"{block.place}: an answer to nothing"
            assert found[-1].answer is None, f"{block.place}: a second answer"
            found[-1].answer = block
        else:
            found.append(Example(block))
    return found


def without_blocks(page: Path) -> str:
    return _FENCED.sub("", page.read_text())
