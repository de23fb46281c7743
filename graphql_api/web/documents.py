"""From what a request asks to an operation that can run: its document is found, checked and prepared."""

from collections import Counter
from dataclasses import dataclass, field

from graphql import GraphQLError, OperationType

from graphql_api import limits
from graphql_api.engine import Engine, NoOperationError, Operation
from graphql_api.limits.trusted import TrustedDocuments
from graphql_api.web import errors
from graphql_api.web.http_errors import HTTPError
from graphql_api.web.parameters import Parameters
from graphql_api.web.persisted_queries import PersistedQueries
from graphql_api.web.request import Request


@dataclass(eq=False, kw_only=True)
class Documents:
    """Prepares the operations of requests.

    `engine_of_services` prepares the documents of those who may read everything (None: `engine` does), `trusted` are
    the only documents that are run (None: any is).
    """

    engine: Engine
    engine_of_services: Engine | None = None
    trusted: TrustedDocuments | None = None
    persisted: PersistedQueries = field(default_factory=PersistedQueries)

    @property
    def fallbacks(self) -> Counter[str]:
        """How often operations ran on graphql-core, by the reason."""
        engines = {self.engine, self.engine_of_services or self.engine}
        return sum((engine.fallbacks for engine in engines), Counter())

    def prepare(self, request: Request, asked: Parameters) -> Operation:
        """The operation that a request asks for.

        Raises:
            HTTPError: there is no such document or operation, or it must not run.
        """
        query = asked.query
        if self.trusted is not None:
            try:
                query = self.trusted.find(query, asked.document_id or asked.persisted_hash)
            except GraphQLError as error:
                raise not_run(errors.about_document([error]), [error]) from None
        elif asked.persisted_hash is not None:
            query = self.persisted.find(asked)
        elif query is None:
            message = "Send `query`: this service has no trusted documents, so `documentId` names nothing."
            raise HTTPError(400, "BAD_REQUEST", message)
        caller = request.caller
        if caller is not None and caller.reads_all:
            engine, owner = self.engine_of_services or self.engine, None
        else:
            engine, owner = self.engine, (caller and caller.subject) or ""
        request.owner = owner
        if request.batch_size:
            _count_tokens(engine, query)
        operation = engine.prepare(query, asked.operation_name, owner)
        if (
            asked.persisted_hash is not None
            and asked.query is not None
            and self.trusted is None
            and (isinstance(operation, Operation) or isinstance(operation[0], NoOperationError))
        ):
            self.persisted.remember(asked, query, owner)
        if isinstance(operation, list):
            raise not_run(errors.about_document(operation), operation)
        if request.method != "POST" and operation.kind is not OperationType.QUERY:
            raise HTTPError(405, "METHOD_NOT_ALLOWED", "Send mutations by POST.", [(b"allow", b"POST")])
        return operation


def not_run(told: list[errors.Formatted], found: list[GraphQLError]) -> HTTPError:
    """The error of an operation that was not run: what callers are told, and which limits were exceeded."""
    met = [limits.limit_of(error) for error in found]
    return HTTPError.of_errors(told, [limit for limit in met if limit])


def _count_tokens(engine: Engine, query: str) -> None:
    """Add the tokens of a document to those of its batch, before anything expensive is done with it.

    Raises:
        HTTPError: they are too many.
    """
    spent, most = limits.spent.get(), engine.max_batch_tokens
    if spent is None or most is None:
        return
    spent.tokens += engine.tokens_of(query, most - spent.tokens)
    if spent.tokens > most:
        error = limits.DocumentTooComplexError("too many tokens in the requests of a batch", most, "MAX_TOKENS")
        raise not_run(errors.about_document([error]), [error])
