"""What tests of limits share: the service's schema, and its limits as they are unless an operator changes them."""

import pytest

from graphql_api.limits import DocumentLimits, document_check
from graphql_api.schema import build_schema
from graphql_api.settings import Settings


@pytest.fixture(scope="session")
def schema():
    return build_schema()._schema


@pytest.fixture(scope="session")
def limits():
    return DocumentLimits.from_settings(Settings.model_construct())


@pytest.fixture(scope="session")
def check(limits):
    return document_check(limits)
