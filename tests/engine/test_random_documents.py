"""Random operations on a hostile schema: both ways of execution answer the same."""

import os

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.engine.documents import requests
from tests.engine.hostile import SCHEMA
from tests.engine.oracle import Pair

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "100"))
SEEDS = 4
PAIR = Pair(SCHEMA, max_documents=10)


# graphql-core cancels what it has not begun to await; nothing of that is ours.
@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter)")
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(operation=requests(SCHEMA._schema), seed=st.integers(0, 2**16))
async def test_any_operation_is_answered_as_by_graphql_core(collect, operation, seed):
    assume(not isinstance(PAIR.engine.prepare(operation.query), list))
    for luck in range(SEEDS):
        await PAIR.agree(operation.query, operation.variables, seed=seed + luck, exact=False)
    collect()
