"""Kinds of values that any variable may have: lists, secrets, numbers, words and files."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from graphql_api.domain.cards import quoted

_MIN_KEY_BYTES = 32  # RFC 7518, 3.2


def _split(value: object) -> object:
    """`"a, b"` → `("a", "b")`. Commas alone are refused: without its values, a list could allow everything."""
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("takes comma-separated values; unset it for none")
    return parts


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _long(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode(errors="surrogateescape"))
    if size < _MIN_KEY_BYTES:
        raise ValueError(
            f"takes at least {_MIN_KEY_BYTES} bytes, not {size}; generate one with `openssl rand -hex {_MIN_KEY_BYTES}`"
        )
    return value


def _readable(value: Path) -> Path:
    if os.access(value, os.R_OK) and value.is_file():
        return value
    is_there = os.access(value, os.F_OK)
    wrong = "does not exist" if not is_there else "cannot be read" if value.is_file() else "is not a file"
    raise ValueError(f"takes the path of a readable file; {quoted(str(value))} {wrong}")


Lower = BeforeValidator(_lower)
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
SymmetricKey = Annotated[SecretStr, AfterValidator(_long)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
