"""The rows of the fault matrix, by theme. Importing this package gathers them."""

from tests.faults.row import registered_rows
from tests.faults.rows import (
    bad_jobs,
    deadlines,
    network,
    process_death,
    redis_trouble,
    scale,
    schedulers,
)

ROWS = registered_rows()

__all__ = ['ROWS', 'bad_jobs', 'deadlines', 'network', 'process_death', 'redis_trouble', 'scale', 'schedulers']
