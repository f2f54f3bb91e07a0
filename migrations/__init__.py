"""Alembic migrations of the farm's database; run by `farm.db.session.upgrade`."""
