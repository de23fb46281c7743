"""Who is asking, and who may do what: one table decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from graphql_api.domain.errors import NotAllowed, NotAuthenticated

READ_SCOPE = "gateway-tokens:read"
WRITE_SCOPE = "gateway-tokens:write"
ADMIN_SCOPE = "gateway-tokens:admin"


class Need(Enum):
    """What a field asks of its caller, and which scopes give it for every user's tokens."""

    NOTHING = "anybody, even without an access token"
    OWNER = "the user whose tokens they are, or the scope gateway-tokens:read", READ_SCOPE, WRITE_SCOPE, ADMIN_SCOPE
    READ = "the scope gateway-tokens:read", READ_SCOPE, WRITE_SCOPE, ADMIN_SCOPE
    WRITE = "the scope gateway-tokens:write", WRITE_SCOPE, ADMIN_SCOPE
    ADMIN = "the scope gateway-tokens:admin", ADMIN_SCOPE

    def __init__(self, what: str, *scopes: str) -> None:
        self.what = what
        self.scopes = frozenset(scopes)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: the access token's `sub` and scopes; `subject` is None where there was no access token."""

    subject: str | None
    scopes: frozenset[str] = frozenset()

    def has(self, need: Need) -> bool:
        """Whether a scope gives this right for every user's tokens."""
        return need is Need.NOTHING or not self.scopes.isdisjoint(need.scopes)

    def may_read(self, user_id: str) -> bool:
        """Whether the caller may read this user's tokens: their own, or with a scope anybody's."""
        return self.subject == user_id or self.has(Need.READ)

    def must(self, field: str) -> None:
        """Go on only where the table of rules lets this caller use this field, such as `"Query.customerGatewayToken"`.

        A user passes `OWNER` here: whose tokens they are is seen once they are read.

        Raises:
            NotAuthenticated: nobody is asking and the field needs more than nothing.
            NotAllowed: the caller lacks the scope.
        """
        self.require(RULES[field])

    def require(self, need: Need) -> None:
        """Go on only with this right; raises as `must` does."""
        if self.has(need):
            return
        if self.subject is None:
            raise NotAuthenticated("This needs an access token: send it as `Authorization: Bearer …`.")
        if need is not Need.OWNER:
            raise NotAllowed(f"This needs {need.what}.")

    def must_read(self, user_id: str) -> None:
        """Go on only where the caller may read this user's tokens.

        Raises:
            NotAuthenticated: nobody is asking.
            NotAllowed: the tokens are somebody else's.
        """
        self.require(Need.OWNER)
        if not self.may_read(user_id):
            raise NotAllowed(f"These tokens are another user's. Reading them needs {Need.READ.what}.")


NOBODY = Caller(None)
# Where authentication is disabled, everybody is this caller.
EVERYBODY = Caller("anonymous", frozenset({ADMIN_SCOPE}))

RULES: Mapping[str, Need] = {
    "Query._service": Need.NOTHING,
    "Query._entities": Need.NOTHING,  # each entity by its own rule
    "Query.customerGatewayToken": Need.OWNER,
    "Query.customerGatewayTokenByCustomer": Need.OWNER,
    "Query.customerGatewayTokens": Need.OWNER,  # one user's; without filter.userId ADMIN
    "User.id": Need.NOTHING,
    "User.gatewayTokens": Need.OWNER,
    "User.gatewayToken": Need.OWNER,
    "CustomerGatewayToken.id": Need.OWNER,
    "CustomerGatewayToken.userId": Need.OWNER,
    "CustomerGatewayToken.user": Need.OWNER,
    "CustomerGatewayToken.gateway": Need.OWNER,
    "CustomerGatewayToken.gatewayCustomerId": Need.OWNER,
    "CustomerGatewayToken.isActive": Need.OWNER,
    "CustomerGatewayToken.createdAt": Need.OWNER,
    "CustomerGatewayToken.updatedAt": Need.OWNER,
    "CustomerGatewayToken.version": Need.OWNER,
    "CustomerGatewayToken.deactivatedAt": Need.OWNER,
    "CustomerGatewayToken.deactivationReason": Need.OWNER,
    "CustomerGatewayToken.lastVerifiedAt": Need.OWNER,
    "CustomerGatewayToken.description": Need.READ,
    "CustomerGatewayToken.metadata": Need.READ,
    "CustomerGatewayToken.formerGatewayCustomerIds": Need.READ,
    "CustomerGatewayToken.history": Need.READ,
    "Mutation.claimGatewayCustomer": Need.WRITE,
    "Mutation.createCustomerGatewayToken": Need.WRITE,
    "Mutation.saveCustomerGatewayToken": Need.WRITE,
    "Mutation.saveCustomerGatewayTokens": Need.WRITE,
    "Mutation.updateCustomerGatewayToken": Need.WRITE,
    "Mutation.activateCustomerGatewayToken": Need.WRITE,
    "Mutation.deactivateCustomerGatewayToken": Need.WRITE,
    "Mutation.deactivateGatewayCustomer": Need.WRITE,
    "Mutation.verifyGatewayCustomer": Need.WRITE,
    "Mutation.deleteCustomerGatewayToken": Need.WRITE,
    "Mutation.mergeUserGatewayTokens": Need.ADMIN,
    "Mutation.eraseUserGatewayTokens": Need.ADMIN,
    "Mutation.liftUserErasure": Need.ADMIN,
}
