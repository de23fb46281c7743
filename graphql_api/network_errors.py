"""What a failed connection says in plain words, whichever library made it."""

import os
import re
import socket
import ssl

# What asyncio says of a host with several addresses.
_SEVERAL = re.compile(r"Multiple exceptions: \[Errno ([0-9]+)\]")


def reason(error: BaseException) -> str:
    """Why a connection was not made or was lost, such as `connection refused`."""
    cause: BaseException | None = error
    found = "the connection was closed without a valid answer"
    while cause is not None:
        match cause:
            case TimeoutError():
                return "it took too long"
            case ssl.SSLCertVerificationError():
                return f"its certificate is not valid: {cause.verify_message}"
            case ssl.SSLError():
                return "it does not speak TLS there"
            case socket.gaierror():
                return "its host name has no address"
            case OSError():
                several = _SEVERAL.match(str(cause))
                number = int(several[1]) if several else cause.errno
                found = os.strerror(number).lower() if number else str(cause) or found
            case _:
                pass
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else getattr(cause, "os_error", None)
        cause = inner or cause.__cause__ or cause.__context__
    return found
