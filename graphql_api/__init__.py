"""Which customer a user is at each payment gateway: a federated GraphQL subgraph."""

__version__ = "0.1.0"
