# Contains only the service; DATABASE_URL names the PostgreSQL. Builds with or without BuildKit.
FROM node:24-slim AS graphiql

WORKDIR /srv/graphiql
COPY graphiql/package.json graphiql/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY graphiql ./
RUN npm run build


FROM python:3.13-slim-bookworm AS build

COPY requirements.lock /
RUN python -m venv --without-pip /srv/python \
 && pip --python /srv/python/bin/python install \
      --no-cache-dir --require-hashes --only-binary :all: --requirement /requirements.lock
COPY graphql_api /srv/graphql_api
COPY docs/*.md /srv/docs/
COPY --from=graphiql /srv/graphql_api/web/static /srv/graphql_api/web/static
COPY deploy/healthcheck /srv/python/bin/healthcheck
RUN /srv/python/bin/python -m compileall -q /srv/graphql_api \
 && printf '#!/srv/python/bin/python\nfrom graphql_api.__main__ import main\n\nmain()\n' > /srv/python/bin/gateway-tokens \
 && chmod 755 /srv/python/bin/gateway-tokens /srv/python/bin/healthcheck


FROM python:3.13-slim-bookworm

# docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=https://…
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="customer-gateway-tokens" \
      org.opencontainers.image.description="A federated GraphQL subgraph that maps users to their customers at payment gateways" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

COPY --from=build /srv /srv
ENV PATH=/srv/python/bin:$PATH \
    PYTHONPATH=/srv \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["healthcheck"]
ENTRYPOINT ["gateway-tokens"]
CMD ["serve", "--host", "0.0.0.0"]
