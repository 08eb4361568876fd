"""The demo's job: plain blocking code, as anybody would write it. Nothing here knows of greenq or gevent."""

from __future__ import annotations

import urllib.request

SOCKET_SECONDS = 10.0


def count_words_at_url(url: str) -> int:
    """How many words the page there has. Raises what `urllib.request.urlopen` raises."""
    with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as page:
        return len(page.read().split())
