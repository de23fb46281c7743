# The service alone: PostgreSQL is elsewhere, named by DATABASE_URL. Builds with any builder, BuildKit or not.
FROM node:24-slim AS graphiql

WORKDIR /srv/graphiql
COPY graphiql/package.json ./
RUN npm install --no-package-lock --no-audit --no-fund
COPY graphiql ./
RUN npm run build


FROM python:3.13-slim-bookworm AS build

COPY requirements.lock /
RUN python -m venv --without-pip /srv/python \
 && pip --python /srv/python/bin/python install \
      --no-cache-dir --require-hashes --only-binary :all: --requirement /requirements.lock
COPY graphql_api /srv/graphql_api
COPY --from=graphiql /srv/graphql_api/web/static /srv/graphql_api/web/static
RUN /srv/python/bin/python -m compileall -q /srv/graphql_api


FROM python:3.13-slim-bookworm

LABEL org.opencontainers.image.title="customer-gateway-tokens" \
      org.opencontainers.image.description="A federated GraphQL subgraph: which customer a user is at each payment gateway" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /srv /srv
ENV PATH=/srv/python/bin:$PATH \
    PYTHONPATH=/srv \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "graphql_api"]
CMD ["serve", "--host", "0.0.0.0"]
