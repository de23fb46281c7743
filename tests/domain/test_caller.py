"""Who may do what, without a server around it: scopes, owners, and those without an access token."""

import pytest

from graphql_api.domain.caller import (
    ADMIN_SCOPE,
    ANONYMOUS_ADMIN,
    EVENTS_SCOPE,
    FIELD_PERMISSIONS,
    READ_SCOPE,
    UNAUTHENTICATED,
    WRITE_SCOPE,
    Caller,
    Permission,
)
from graphql_api.domain.errors import ForbiddenError, UnauthenticatedError

# The permissions of each caller; what each scope gives contains what the one before it gives.
CALLERS = {
    UNAUTHENTICATED: {Permission.NOTHING},
    Caller("u1"): {Permission.NOTHING},
    Caller("s", frozenset({"something:else"})): {Permission.NOTHING},
    Caller("s", frozenset({READ_SCOPE})): {Permission.NOTHING, Permission.OWNER, Permission.READ},
    Caller("s", frozenset({WRITE_SCOPE})): set(Permission) - {Permission.EVENTS, Permission.ADMIN},
    Caller("s", frozenset({EVENTS_SCOPE})): {Permission.NOTHING, Permission.EVENTS},
    Caller("s", frozenset({ADMIN_SCOPE})): set(Permission),
    ANONYMOUS_ADMIN: set(Permission),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("permission", Permission)
def test_a_scope_gives_what_it_says_and_all_below_it(caller, permission):
    assert caller.has(permission) is (permission in CALLERS[caller])


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("field", FIELD_PERMISSIONS)
def test_authorize_raises_unless_the_permission_is_there(caller, field):
    permission = FIELD_PERMISSIONS[field]
    owner_passes = permission is Permission.OWNER and caller.subject is not None
    if caller.has(permission) or owner_passes:
        caller.authorize(field)
    else:
        expected = UnauthenticatedError if caller.subject is None else ForbiddenError
        with pytest.raises(expected) as raised:
            caller.authorize(field)
        assert type(raised.value) is expected


def test_a_user_reads_their_own_tokens_and_nobody_elses():
    user = Caller("u1")
    user.authorize_read("u1")
    with pytest.raises(ForbiddenError, match="another user's"):
        user.authorize_read("u2")
    with pytest.raises(UnauthenticatedError):
        UNAUTHENTICATED.authorize_read("u1")
    Caller("s", frozenset({READ_SCOPE})).authorize_read("u2")
