"""What tests of limits share: the service's schema, and its limits as they are unless an operator changes them."""

import pytest

from graphql_api.limits import checks
from graphql_api.schema import build_schema
from graphql_api.settings import Settings

LIMITS = (
    "max_operations",
    "max_fragments",
    "max_directives",
    "max_variables",
    "max_arguments",
    "max_selections",
    "max_depth",
    "max_introspection_depth",
    "max_introspection_lists",
    "max_aliases",
    "max_root_fields",
    "max_repeated_fields",
)


@pytest.fixture(scope="session")
def schema():
    return build_schema()._schema


@pytest.fixture(scope="session")
def limits():
    settings = Settings.model_construct()
    return {name: getattr(settings, name) for name in LIMITS}


@pytest.fixture(scope="session")
def check(limits):
    [check] = checks(**limits)
    return check
