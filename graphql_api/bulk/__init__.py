"""Bulk work on files: import, export, remap and reconcile.

`files` reads and writes files and knows no database. `importing`, `exporting`, `remapping` and `reconciling` are what
the commands do, with the SQL of `storage`. `jobs` runs one of them on a file and reports what became of it.
"""
