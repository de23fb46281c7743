"""What to say of a database that cannot be used: why, and what to do."""

import re
import socket
import ssl

import asyncpg

from graphql_api import network_errors

_GRANTS = "run the grants of step 3 of `gateway-tokens help database-roles`; `gateway-tokens doctor` lists them"
_LIMITED = re.compile("too many connections for (role|database)")  # `connection limit` of one, not of the server
_CERTIFICATE = (
    "set sslrootcert in DATABASE_URL to the file with the certificates of the database's CA: "
    "`gateway-tokens help configuration`"
)
# By the first kind that fits.
_REMEDIES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (asyncpg.InvalidAuthorizationSpecificationError,),
        "check the user and the password in DATABASE_URL, and PostgreSQL's pg_hba.conf",
    ),
    ((asyncpg.InvalidCatalogNameError,), "create that database, or name another one in DATABASE_URL"),
    ((asyncpg.TooManyConnectionsError,), "raise PostgreSQL's max_connections, or lower DATABASE_POOL_SIZE"),
    ((asyncpg.UndefinedTableError,), "run `gateway-tokens migrate`"),
    ((socket.gaierror,), "check the host in DATABASE_URL, and that its name resolves here"),
    ((TimeoutError,), "check the host and the port in DATABASE_URL, and firewalls in between"),
    (
        (ConnectionRefusedError,),
        "start PostgreSQL, or check the host and the port in DATABASE_URL",
    ),
    (
        (FileNotFoundError,),
        "start PostgreSQL, or check the directory of its socket in DATABASE_URL",
    ),
    ((ssl.SSLCertVerificationError,), _CERTIFICATE),
    (
        (asyncpg.TargetServerAttributeNotMatched,),
        "set DATABASE_URL to the primary; if it is the primary, turn default_transaction_read_only off",
    ),
    (
        (ConnectionError,),
        "check that PostgreSQL answers there, and supports TLS if sslmode in DATABASE_URL requires it",
    ),
)


def reason(error: Exception) -> str:
    """Why the database cannot be used."""
    if "rejected SSL upgrade" in str(error):
        return "the server does not support TLS"
    if isinstance(error, OSError):
        return network_errors.reason(error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it is read-only"
    return str(error).partition("\n")[0] or type(error).__name__  # without the driver's hint


def remedy(error: Exception, *, for_owner: bool = False) -> str:
    """What to do about it; `for_owner` says whether only the role that owns the tables can do what failed."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        if "for database" in str(error):
            return "grant connect on that database to the role"
        if for_owner and "alembic_version" not in str(error):  # which every role may read
            return "run this as the role that owns the tables: `gateway-tokens help database-roles`"
        if "for schema" in str(error):
            return "run `gateway-tokens migrate` as the role that owns the tables: `gateway-tokens help database-roles`"
        return _GRANTS
    if isinstance(error, asyncpg.TooManyConnectionsError) and (limited := _LIMITED.search(str(error))):
        return f"raise the connection limit of the {limited[1]}, or lower DATABASE_POOL_SIZE"
    found = next((remedy for kinds, remedy in _REMEDIES if isinstance(error, kinds)), None)
    if "root certificate file" in str(error):
        found = _CERTIFICATE
    return found or "check DATABASE_URL, the network and permissions"
