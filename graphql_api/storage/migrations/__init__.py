"""Alembic's environment and the migrations, packaged with the code that needs them."""
