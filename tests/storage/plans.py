"""Looks into the plans that PostgreSQL explains as JSON."""


def nodes_of(plan):
    """A node of a plan, and all below it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes_of(child)
