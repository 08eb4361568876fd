"""What the floors and their producers agree on."""

from datetime import UTC, datetime

#: The bare floor's jobs by id, and those that it has in hand with the time of their claim.
BARE_JOBS = 'floor:jobs'
BARE_TAKEN = 'floor:taken'


def utc_now() -> str:
    """The time as RQ writes it."""
    return datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
