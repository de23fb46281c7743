"""Automatic persisted queries: documents that clients sent once, by their hash, in Apollo's form."""

import hashlib

from graphql_api.engine.cache import SharedCache
from graphql_api.web.errors import refused
from graphql_api.web.http_errors import HTTPError
from graphql_api.web.parameters import Parameters

MAX_DOCUMENTS = 1000
MAX_CHARACTERS = 1_000_000
_LARGE_SHARE = 8  # a document that takes more than this part of the store is not kept


class PersistedQueries:
    """Remembers documents that were valid: the most recently used, within bounds."""

    def __init__(self, max_documents: int = MAX_DOCUMENTS, max_characters: int = MAX_CHARACTERS) -> None:
        self._documents: SharedCache[str, str] = SharedCache(max_documents, max_characters)
        self._max_document = max_characters // _LARGE_SHARE

    def find(self, asked: Parameters) -> str:
        """The document of a request that names a hash.

        Raises:
            HTTPError: 200, clients answer this by sending the document too; 400, it is not the document of the hash.
        """
        if isinstance(asked.persisted_version, bool) or asked.persisted_version != 1:
            raise _refused("PersistedQueryNotSupported", "PERSISTED_QUERY_NOT_SUPPORTED")
        name = str(asked.persisted_hash).lower()
        if asked.query is not None:
            if hashlib.sha256(asked.query.encode()).hexdigest() != name:
                raise HTTPError(400, "BAD_REQUEST", "`sha256Hash` is not the SHA-256 of `query`.")
            return asked.query
        document = self._documents.get(name)
        if document is None:
            raise _refused("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")
        return document

    def remember(self, asked: Parameters, document: str, owner: str | None = None) -> None:
        """Keep a valid document that came with its hash, in the share of its owner."""
        name = str(asked.persisted_hash).lower()
        if len(document) <= self._max_document and self._documents.get(name) is None:
            self._documents.put(name, document, len(document), owner)


def _refused(message: str, code: str) -> HTTPError:
    return HTTPError(200, code, message, errors=[refused(code, message)])
