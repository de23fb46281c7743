"""Asking gateways themselves: whether customers still exist, and to delete those of erased users.

`stripe` and `mollie` know what to ask and what the answers mean, one module for each API; `client` asks, at a rate and
with retries. `checking` and `purging` are what the commands do with the answers. `jobs` runs one and reports.
"""
