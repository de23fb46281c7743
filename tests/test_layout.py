"""The tests of a module are found by its name: `graphql_api/auth/keys.py` has `tests/auth/test_keys.py`."""

from pathlib import Path

import pytest

import graphql_api

PACKAGE = Path(graphql_api.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("__") and "migrations" not in path.parts
)

# Modules that are one thing only together, by what they do together.
TOGETHER = {
    # Compiled execution is compared with graphql-core, whole operations on both.
    "engine/": "engine/test_corpus.py",
    # A document is refused by what all rules say of it.
    "limits/": "limits/test_documents.py",
    # GraphQL goes in, GraphQL comes out.
    "schema/": "schema/test_values.py",
    # A request is answered by all of it.
    "web/": "web/test_graphql_over_http.py",
    # Files of all formats are read and written by commands.
    "bulk/": "bulk/test_jobs.py",
    # What the service answers is in the tables.
    "storage/": "storage/test_tokens.py",
    # Every mutation is compared with a model, whatever came before.
    "service/": "service/test_life.py",
    "observability/": "observability/test_metrics.py",
    "webhooks/": "webhooks/test_stripe.py",
    # A command is called by its line, and prints and ends.
    "cli/": "cli/test_main.py",
    # A variable is set, and read or refused.
    "settings/": "settings/test_settings.py",
    "domain/": "domain/test_values.py",
    # What is asked of a gateway and what becomes of its answers.
    "gateway_apis/": "gateway_apis/test_checking.py",
}
ALONE = {
    "app.py": "web/test_app.py",
    "demo.py": "bulk/test_demo.py",
    "interrupts.py": "cli/test_main.py",
    "observability/logs.py": "web/test_logs.py",
    "observability/tracing.py": "observability/test_traces.py",
    "schema/cursors.py": "schema/test_pages.py",
    "schema/connection.py": "schema/test_pages.py",
    "deliveries/sending.py": "deliveries/test_delivering.py",
    "storage/endpoints.py": "deliveries/test_delivering.py",
    "storage/replicas.py": "faults/test_replicas.py",
    "storage/selects.py": "storage/test_plans.py",
    "storage/statements.py": "storage/test_plans.py",
    "web/graphiql.py": "graphiql/test_page.py",
    "web/asgi.py": "web/test_transports.py",
    "web/request.py": "web/test_framing.py",
    "webhooks/endpoint.py": "webhooks/test_stripe.py",
}


def own(module):
    """The file of a module's own tests."""
    folder, _, name = module.rpartition("/")
    return TESTS / folder / f"test_{name}"


def shared(module):
    folder = f"{module.partition('/')[0]}/"
    return TESTS / (ALONE.get(module) or TOGETHER[folder])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_tested_where_its_name_says_or_where_it_is_said_here(module):
    assert own(module).exists() or shared(module).exists()


@pytest.mark.parametrize("module", ALONE)
def test_only_modules_without_tests_of_their_own_are_said_to_be_tested_elsewhere(module):
    assert (PACKAGE / module).exists()
    assert not own(module).exists()


@pytest.mark.parametrize("folder", TOGETHER)
def test_every_part_with_tests_in_common_is_there(folder):
    assert (PACKAGE / folder).is_dir()
