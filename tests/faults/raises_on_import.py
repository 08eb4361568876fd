"""A module with a job that cannot be imported."""

raise RuntimeError('this module raises on import')


def job(id: str) -> None:
    """Never reached."""
