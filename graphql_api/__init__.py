"""Maps users to their customers at payment gateways: a federated GraphQL subgraph."""

__version__ = "0.1.0"
