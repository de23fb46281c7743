"""GraphQL in, GraphQL out: types, inputs, payloads and entity references; decisions are the service's."""

from typing import Any, cast

from strawberry.federation import Schema

from graphql_api.schema.entities import name_entity_types, print_once
from graphql_api.schema.mutations import Mutation
from graphql_api.schema.queries import Query
from graphql_api.schema.scalars import config, omit_missing_variables, refuse_floats_as_ids
from graphql_api.schema.types import CustomerGatewayToken, User


def build_schema() -> Schema:
    """The subgraph. Federation 2.9 is the newest that every composition library knows."""
    refuse_floats_as_ids()
    schema = Schema(
        query=Query, mutation=Mutation, types=[User, CustomerGatewayToken], config=config, federation_version="2.9"
    )
    omit_missing_variables(cast("Any", schema)._schema)  # noqa: SLF001 - Strawberry has no public name for it
    name_entity_types(schema)
    print_once(schema)
    return schema
