"""A module with a job whose import takes for ever."""

import time

time.sleep(3600)


def job(id: str) -> None:
    """Never reached."""
