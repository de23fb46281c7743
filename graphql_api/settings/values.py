"""Kinds of values that any variable may have: lists, secrets, numbers, words and files; and what a wrong one says."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import ErrorDetails
from pydantic_settings import NoDecode

from graphql_api.domain.cards import quoted

_MIN_KEY_BYTES = 32  # RFC 7518, 3.2
_HEADER_NAME = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2


def expected(problem: ErrorDetails, number: str = "a number") -> str:
    """What a value takes and is not, in plain words, as a predicate; `number` says of what unit a fraction is."""
    got, limits = quoted(str(problem["input"])), problem.get("ctx", {})
    match problem["type"]:
        case "bool_parsing":
            takes = "true or false"
        case "int_parsing" | "int_from_float" | "int_parsing_size":
            takes = "a whole number"
        case "float_parsing":
            takes = number
        case "literal_error":
            takes = limits["expected"].replace("'", "")
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            bound = {"gt": "greater than {:g}", "ge": "at least {:g}", "le": "at most {:g}"}
            takes = next(bound[key].format(limits[key]) for key in bound if key in limits)
        case "string_unicode":
            return "has bytes that are not UTF-8"
        case _:
            return problem["msg"].removeprefix("Value error, ")
    return f"must be {takes}, not {got}"


def _split(value: object) -> object:
    """`"a, b"` → `("a", "b")`. Commas alone are refused: without its values, a list could allow everything."""
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("must be comma-separated values; unset it for none")
    return parts


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _header_names(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"must be names of HTTP headers, such as X-Client-Name; {quoted(name)} is not one")
    return value


def _long(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode(errors="surrogateescape"))
    if size < _MIN_KEY_BYTES:
        raise ValueError(
            f"must have at least {_MIN_KEY_BYTES} bytes, not {size}; generate one with "
            f"`openssl rand -hex {_MIN_KEY_BYTES}`"
        )
    return value


def _readable(value: Path) -> Path:
    if os.access(value, os.R_OK) and value.is_file():
        return value
    is_there = os.access(value, os.F_OK)
    wrong = "does not exist" if not is_there else "cannot be read" if value.is_file() else "is not a file"
    raise ValueError(f"must be the path of a readable file; {quoted(str(value))} {wrong}")


Lower = BeforeValidator(_lower)
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
HeaderNames = Annotated[Names, AfterValidator(_header_names)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
SymmetricKey = Annotated[SecretStr, AfterValidator(_long)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
