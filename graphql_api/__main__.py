"""`python -m graphql_api` is `gateway-tokens`."""

from graphql_api.cli import main

if __name__ == "__main__":
    main()
