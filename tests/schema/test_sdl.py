"""The published schema: what it promises, and that it explains itself."""

from pathlib import Path

import pytest
from graphql import (
    EnumTypeDefinitionNode,
    EnumValueDefinitionNode,
    FieldDefinitionNode,
    InputObjectTypeDefinitionNode,
    InputValueDefinitionNode,
    ObjectTypeDefinitionNode,
    ScalarTypeDefinitionNode,
    TypeDefinitionNode,
    Visitor,
    parse,
    print_ast,
    visit,
)

SDL = (Path(__file__).parents[2] / "schema.graphql").read_text(encoding="utf-8")
FEDERATIONS_OWN = {"_Any", "_Service", "_Entity"}

# What other services and pages rely on, by type: it may grow and never shrink.
PROMISED = {
    "DateTime": ('@specifiedBy(url: "https://scalars.graphql.org/chillicream/date-time")'),
    "JSON": (
        '@specifiedBy(url: "https://ecma-international.org/wp-content/uploads/ECMA-404_2nd_edition_december_2017.pdf")'
    ),
    "User": (
        '@key(fields: "id"); id: ID!; '
        "gatewayTokens(gateway: String, isActive: Boolean): [CustomerGatewayToken!]; "
        "gatewayToken(gateway: String!): CustomerGatewayToken"
    ),
    "CustomerGatewayToken": (
        '@key(fields: "id"); @key(fields: "userId gateway"); @key(fields: "gateway gatewayCustomerId"); id: ID!; '
        "userId: ID!; user: User; gateway: String!; gatewayCustomerId: String!; "
        'description: String @tag(name: "internal"); metadata: JSON @tag(name: "internal"); isActive: Boolean!; '
        "createdAt: DateTime!; updatedAt: DateTime!; version: Int!; deactivatedAt: DateTime; "
        "deactivationReason: CustomerGatewayTokenDeactivationReason; lastVerifiedAt: DateTime; "
        'formerGatewayCustomerIds: [String!] @tag(name: "internal"); '
        'history(first: Int, after: String): CustomerGatewayTokenEventConnection @tag(name: "internal")'
    ),
    "CustomerGatewayTokenDeactivationReason": "GATEWAY_DELETED | USER_REQUEST | MERGED | FRAUD | OTHER",
    "CustomerGatewayTokenEvent": (
        "id: ID!; action: CustomerGatewayTokenAction!; actor: String!; at: DateTime!; version: Int!; "
        "gatewayCustomerId: String!; isActive: Boolean!; reason: String; tokenId: ID!; gateway: String!; userId: ID"
    ),
    "CustomerGatewayTokenAction": (
        "CREATED | UPDATED | REPLACED | ACTIVATED | DEACTIVATED | VERIFIED | MERGED | REASSIGNED | DELETED | ERASED"
        " | IMPORTED"
    ),
    "CustomerGatewayTokenEventConnection": (
        "edges: [CustomerGatewayTokenEventEdge!]!; nodes: [CustomerGatewayTokenEvent!]!; pageInfo: PageInfo!"
    ),
    "CustomerGatewayTokenEventEdge": "cursor: String!; node: CustomerGatewayTokenEvent!",
    "CustomerGatewayTokenConnection": (
        "edges: [CustomerGatewayTokenEdge!]!; nodes: [CustomerGatewayToken!]!; pageInfo: PageInfo!; totalCount: Int!"
    ),
    "CustomerGatewayTokenEdge": "cursor: String!; node: CustomerGatewayToken!",
    "PageInfo": (
        "@shareable; hasNextPage: Boolean!; hasPreviousPage: Boolean!; startCursor: String; endCursor: String"
    ),
    "CustomerGatewayTokenFilter": (
        "userId: ID; gateway: String; gatewayCustomerId: String; isActive: Boolean; createdAfter: DateTime; "
        "createdBefore: DateTime; updatedAfter: DateTime; updatedBefore: DateTime; notVerifiedSince: DateTime"
    ),
    "Query": (
        "customerGatewayToken(id: ID!): CustomerGatewayToken; "
        "customerGatewayTokenByCustomer(gateway: String!, gatewayCustomerId: String!): CustomerGatewayToken; "
        "customerGatewayTokens(filter: CustomerGatewayTokenFilter, first: Int, after: String, last: Int, before: "
        "String): CustomerGatewayTokenConnection!"
    ),
    "CustomerGatewayTokenErrorCode": (
        "INVALID | NOT_FOUND | ALREADY_EXISTS | CUSTOMER_TAKEN | STALE | CARD_NUMBER | ERASED"
    ),
    "CustomerGatewayTokenUserError": "code: CustomerGatewayTokenErrorCode!; message: String!; field: [String!]",
    "CreateCustomerGatewayTokenInput": (
        "userId: ID!; gateway: String!; gatewayCustomerId: String!; description: String; metadata: JSON; "
        "isActive: Boolean! = true"
    ),
    "SaveCustomerGatewayTokenInput": (
        "userId: ID!; gateway: String!; gatewayCustomerId: String!; replaces: String; description: String; "
        "metadata: JSON; isActive: Boolean; expectedVersion: Int"
    ),
    "UpdateCustomerGatewayTokenInput": (
        "id: ID!; gatewayCustomerId: String; description: String; metadata: JSON; isActive: Boolean; "
        "expectedVersion: Int"
    ),
    "BatchErrorPolicy": "ABORT | CONTINUE",
    "MergeConflictPolicy": "FAIL | KEEP_TARGET | KEEP_SOURCE",
    "CustomerGatewayTokenPayload": (
        "gatewayToken: CustomerGatewayToken; user: User; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "SaveCustomerGatewayTokenPayload": (
        "gatewayToken: CustomerGatewayToken; user: User; created: Boolean!; "
        "userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "SaveCustomerGatewayTokensPayload": (
        "gatewayTokens: [CustomerGatewayToken]!; createdCount: Int!; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "DeleteCustomerGatewayTokenPayload": ("deletedId: ID; user: User; userErrors: [CustomerGatewayTokenUserError!]!"),
    "MergeUserGatewayTokensPayload": (
        "user: User; moved: [CustomerGatewayToken!]!; conflicts: [CustomerGatewayToken!]!; "
        "winners: [CustomerGatewayToken!]!; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "ErasedGatewayCustomer": "gateway: String!; gatewayCustomerId: String!",
    "LiftUserErasurePayload": "user: User; userErrors: [CustomerGatewayTokenUserError!]!",
    "EraseUserGatewayTokensPayload": (
        "erased: [ErasedGatewayCustomer!]!; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "GatewayCustomerClaim": "idempotencyKey: String!; expiresAt: DateTime!; acquired: Boolean!; replaces: String",
    "ReleaseGatewayCustomerClaimPayload": "released: Boolean!; userErrors: [CustomerGatewayTokenUserError!]!",
    "ReassignGatewayCustomerInput": "gateway: String!; gatewayCustomerId: String!; toUserId: ID!",
    "ReassignGatewayCustomersPayload": (
        "gatewayTokens: [CustomerGatewayToken]!; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "ClaimGatewayCustomerPayload": (
        "gatewayToken: CustomerGatewayToken; claim: GatewayCustomerClaim; userErrors: [CustomerGatewayTokenUserError!]!"
    ),
    "Mutation": (
        "createCustomerGatewayToken(input: CreateCustomerGatewayTokenInput!): CustomerGatewayTokenPayload!; "
        "saveCustomerGatewayToken(input: SaveCustomerGatewayTokenInput!): SaveCustomerGatewayTokenPayload!; "
        "saveCustomerGatewayTokens(inputs: [SaveCustomerGatewayTokenInput!]!, onError: BatchErrorPolicy! = ABORT): "
        "SaveCustomerGatewayTokensPayload!; "
        "updateCustomerGatewayToken(input: UpdateCustomerGatewayTokenInput!): CustomerGatewayTokenPayload!; "
        "activateCustomerGatewayToken(id: ID!, expectedVersion: Int): CustomerGatewayTokenPayload!; "
        "deactivateCustomerGatewayToken(id: ID!, reason: CustomerGatewayTokenDeactivationReason! = OTHER, "
        "expectedVersion: Int): CustomerGatewayTokenPayload!; "
        "deleteCustomerGatewayToken(id: ID!, expectedVersion: Int): DeleteCustomerGatewayTokenPayload!; "
        "deactivateGatewayCustomer(gateway: String!, gatewayCustomerId: String!, reason: "
        "CustomerGatewayTokenDeactivationReason! = GATEWAY_DELETED, occurredAt: DateTime): "
        "CustomerGatewayTokenPayload!; "
        "verifyGatewayCustomer(gateway: String!, gatewayCustomerId: String!, at: DateTime): "
        "CustomerGatewayTokenPayload!; "
        "claimGatewayCustomer(userId: ID!, gateway: String!, leaseSeconds: Int! = 30): ClaimGatewayCustomerPayload!; "
        "releaseGatewayCustomerClaim(userId: ID!, gateway: String!, idempotencyKey: String!): "
        "ReleaseGatewayCustomerClaimPayload!; "
        "reassignGatewayCustomers(customers: [ReassignGatewayCustomerInput!]!, reason: String): "
        "ReassignGatewayCustomersPayload!; "
        "mergeUserGatewayTokens(fromUserId: ID!, intoUserId: ID!, onConflict: MergeConflictPolicy! = FAIL, dryRun: "
        "Boolean! = false): MergeUserGatewayTokensPayload!; "
        "eraseUserGatewayTokens(userId: ID!): EraseUserGatewayTokensPayload!; "
        "liftUserErasure(userId: ID!): LiftUserErasurePayload!"
    ),
}


def types():
    return {
        node.name.value: node
        for node in parse(SDL).definitions
        if isinstance(node, TypeDefinitionNode) and node.name.value not in FEDERATIONS_OWN
    }


def signatures(node):
    """What a type promises, one text for each thing."""
    promised = [print_ast(directive) for directive in node.directives or ()]
    if isinstance(node, EnumTypeDefinitionNode):
        promised.append(" | ".join(value.name.value for value in node.values))
    elif isinstance(node, ObjectTypeDefinitionNode):
        promised += [_field(field) for field in node.fields]
    elif isinstance(node, InputObjectTypeDefinitionNode):
        promised += [_argument(field) for field in node.fields]
    return set(promised)


def _field(node):
    arguments = ", ".join(map(_argument, node.arguments or ()))
    tags = [print_ast(directive) for directive in node.directives or () if directive.name.value == "tag"]
    return " ".join([f"{node.name.value}{f'({arguments})' if arguments else ''}: {print_ast(node.type)}", *tags])


def _argument(node):
    default = f" = {print_ast(node.default_value)}" if node.default_value else ""
    return f"{node.name.value}: {print_ast(node.type)}{default}"


@pytest.mark.parametrize("name", PROMISED)
def test_the_schema_has_everything_that_was_promised(name):
    assert set(PROMISED[name].split("; ")) <= signatures(types()[name])


def test_the_schema_is_a_subgraph_that_every_composition_knows():
    [schema] = [node for node in parse(SDL).definitions if node.kind == "schema_definition"]
    composed, link, link_of_caches = [print_ast(directive) for directive in schema.directives]
    assert '"https://specs.apollo.dev/federation/v2.9"' in link
    for name in ("@composeDirective", "@cost", "@key", "@listSize", "@shareable", "@tag"):
        assert f'"{name}"' in link
    assert composed == '@composeDirective(name: "@cacheControl")'
    assert link_of_caches == '@link(url: "https://the-guild.dev/mesh/v1.0", import: ["@cacheControl"])'


def test_tokens_are_never_kept_by_the_caches_of_routers():
    fields = {field.name.value: field for field in types()["User"].fields}
    for node in (types()["CustomerGatewayToken"], fields["gatewayTokens"], fields["gatewayToken"]):
        assert "@cacheControl(maxAge: 0, scope: PRIVATE)" in map(print_ast, node.directives)


class Undescribed(Visitor):
    """Collects what has no description, or one that says nothing."""

    def __init__(self):
        super().__init__()
        self.found = []

    def enter(self, node, _key, _parent, _path, ancestors):
        described = (TypeDefinitionNode, FieldDefinitionNode, InputValueDefinitionNode, EnumValueDefinitionNode)
        if not isinstance(node, described):
            return
        names = [each.name.value for each in [*ancestors, node] if hasattr(each, "name") and each.name]
        if not (FEDERATIONS_OWN | {"cacheControl"}) & set(names) and names[-1] not in {"_service", "sdl"}:
            text = node.description.value.strip() if node.description else ""
            if len(text) < 5 or text[-1] not in ".?":
                self.found.append(".".join(names))


def test_everything_in_the_schema_is_described_in_a_sentence():
    undescribed = Undescribed()
    visit(parse(SDL), undescribed)
    assert undescribed.found == []


def test_lists_tell_routers_how_long_they_may_get():
    for name, node in types().items():
        for field in node.fields or () if isinstance(node, ObjectTypeDefinitionNode) else ():
            lists = "[" in print_ast(field.type) and name in {"User", "CustomerGatewayToken"}
            pages = print_ast(field.type).rstrip("!").endswith("Connection")
            sizes = [print_ast(directive) for directive in field.directives or () if directive.name.value == "listSize"]
            assert bool(sizes) == (lists or pages), (name, field.name.value)
            assert all("requireOneSlicingArgument: false" in size for size in sizes)


def test_scalars_say_where_they_are_specified():
    scalars = [node for node in types().values() if isinstance(node, ScalarTypeDefinitionNode)]
    assert {node.name.value for node in scalars} == {"DateTime", "JSON"}
    assert all("@specifiedBy" in print_ast(node) for node in scalars)
