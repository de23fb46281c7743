"""The caller and their permissions, which one table lists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from graphql_api.domain.errors import ForbiddenError, UnauthenticatedError

READ_SCOPE = "gateway-tokens:read"
WRITE_SCOPE = "gateway-tokens:write"
EVENTS_SCOPE = "gateway-tokens:events"
ADMIN_SCOPE = "gateway-tokens:admin"
SCOPES = frozenset({READ_SCOPE, WRITE_SCOPE, EVENTS_SCOPE, ADMIN_SCOPE})


class Permission(Enum):
    """A permission that a field requires, and the scopes that grant it for every user's tokens."""

    NOTHING = "anyone, even without an access token"
    OWNER = "the user whose tokens they are, or the scope gateway-tokens:read", READ_SCOPE, WRITE_SCOPE, ADMIN_SCOPE
    READ = "the scope gateway-tokens:read", READ_SCOPE, WRITE_SCOPE, ADMIN_SCOPE
    WRITE = "the scope gateway-tokens:write", WRITE_SCOPE, ADMIN_SCOPE
    EVENTS = "the scope gateway-tokens:events or gateway-tokens:admin", EVENTS_SCOPE, ADMIN_SCOPE
    ADMIN = "the scope gateway-tokens:admin", ADMIN_SCOPE

    def __init__(self, what: str, *scopes: str) -> None:
        self.what = what
        self.scopes = frozenset(scopes)


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: the access token's `sub` and scopes. `subject` is None if there was no access token."""

    subject: str | None
    scopes: frozenset[str] = frozenset()
    reads_all: bool = field(init=False, repr=False, compare=False)
    """Whether the caller may read every user's tokens."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads_all", self.has(Permission.READ))

    def has(self, need: Permission) -> bool:
        """Whether a scope grants this permission for every user's tokens."""
        return need is Permission.NOTHING or not self.scopes.isdisjoint(need.scopes)

    def may_read(self, user_id: str) -> bool:
        """Whether the caller may read this user's tokens: their own, or anyone's with a scope."""
        return self.reads_all or self.subject == user_id

    def authorize(self, field: str) -> None:
        """Check that the table lets this caller use this field, such as `"Query.customerGatewayToken"`.

        `OWNER` accepts every user here, because the tokens' user is known only after they are read.

        Raises:
            UnauthenticatedError: there is no access token, and the field needs one.
            ForbiddenError: the caller lacks the scope.
        """
        need = FIELD_PERMISSIONS[field]
        if self.scopes.isdisjoint(need.scopes):
            self.require(need)

    def require(self, need: Permission, advice: str = "") -> None:
        """Check this permission; raises as `authorize` does. `advice` ends the message about a missing scope."""
        if self.has(need):
            return
        if self.subject is None:
            raise UnauthenticatedError("This needs an access token: send it as `Authorization: Bearer …`.")
        if need is not Permission.OWNER:
            raise ForbiddenError(f"This needs {need.what}.{advice}")

    def authorize_read(self, user_id: str) -> None:
        """Check that the caller may read this user's tokens.

        Raises:
            UnauthenticatedError: there is no access token.
            ForbiddenError: the tokens are another user's.
        """
        self.require(Permission.OWNER)
        if not self.may_read(user_id):
            raise ForbiddenError(f"These tokens are another user's. Reading them needs {Permission.READ.what}.")


UNAUTHENTICATED = Caller(None)
# If authentication is disabled, every caller is this one.
ANONYMOUS_ADMIN = Caller("anonymous", frozenset({ADMIN_SCOPE}))

# All fields of the schema. The plain fields of entities, `Query._service` and `Query.customerGatewayTokens` are never
# passed to `authorize`: entities are authorized as a whole, and lists by their filter. `tests/web/test_rights.py` tests
# every line.
FIELD_PERMISSIONS: Mapping[str, Permission] = {
    "Query._service": Permission.NOTHING,
    "Query._entities": Permission.NOTHING,  # each entity by its own rule
    "Query.customerGatewayToken": Permission.OWNER,
    "Query.customerGatewayTokenByCustomer": Permission.OWNER,
    "Query.customerGatewayTokens": Permission.OWNER,  # one user's; without filter.userId ADMIN
    "Query.customerGatewayTokenEvents": Permission.EVENTS,
    "Query.gatewayErasures": Permission.ADMIN,
    "User.id": Permission.NOTHING,
    "User.gatewayTokens": Permission.OWNER,
    "User.gatewayToken": Permission.OWNER,
    "CustomerGatewayToken.id": Permission.OWNER,
    "CustomerGatewayToken.userId": Permission.OWNER,
    "CustomerGatewayToken.user": Permission.OWNER,
    "CustomerGatewayToken.gateway": Permission.OWNER,
    "CustomerGatewayToken.gatewayCustomerId": Permission.OWNER,
    "CustomerGatewayToken.isActive": Permission.OWNER,
    "CustomerGatewayToken.createdAt": Permission.OWNER,
    "CustomerGatewayToken.updatedAt": Permission.OWNER,
    "CustomerGatewayToken.version": Permission.OWNER,
    "CustomerGatewayToken.deactivatedAt": Permission.OWNER,
    "CustomerGatewayToken.deactivationReason": Permission.OWNER,
    "CustomerGatewayToken.lastVerifiedAt": Permission.OWNER,
    "CustomerGatewayToken.description": Permission.READ,
    "CustomerGatewayToken.metadata": Permission.READ,
    "CustomerGatewayToken.formerGatewayCustomerIds": Permission.READ,
    "CustomerGatewayToken.history": Permission.READ,
    "Mutation.claimGatewayCustomer": Permission.WRITE,
    "Mutation.releaseGatewayCustomerClaim": Permission.WRITE,
    "Mutation.createCustomerGatewayToken": Permission.WRITE,
    "Mutation.saveCustomerGatewayToken": Permission.WRITE,
    "Mutation.saveCustomerGatewayTokens": Permission.WRITE,
    "Mutation.updateCustomerGatewayToken": Permission.WRITE,
    "Mutation.activateCustomerGatewayToken": Permission.WRITE,
    "Mutation.deactivateCustomerGatewayToken": Permission.WRITE,
    "Mutation.deactivateGatewayCustomer": Permission.WRITE,
    "Mutation.verifyGatewayCustomer": Permission.WRITE,
    "Mutation.deleteCustomerGatewayToken": Permission.WRITE,
    "Mutation.mergeUserGatewayTokens": Permission.ADMIN,
    "Mutation.reassignGatewayCustomers": Permission.ADMIN,
    "Mutation.eraseUserGatewayTokens": Permission.ADMIN,
    "Mutation.liftUserErasure": Permission.ADMIN,
    "Mutation.confirmGatewayErasures": Permission.ADMIN,
}
