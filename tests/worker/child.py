"""The child of `runner.Runner`: patches itself if it is told to, then works as often as it is told to.

`python -m tests.worker.child gevent|plain`: each line of its input is an order, each line of its output the reply.
"""

import sys

if sys.argv[1] == 'gevent':
    from gevent import monkey

    monkey.patch_all()

import json
import os
import time
import traceback
from typing import Any

import redis

from greenq.connections import default_url
from greenq.utils import import_attribute


def main() -> None:
    """Carries out orders until its input ends."""
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line))), file=replies)


def _carry_out(order: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    reply: dict[str, Any] = {'result': None, 'error': None}
    try:
        options = order['options']
        if 'exception_handlers' in options:
            options['exception_handlers'] = [import_attribute(name) for name in options['exception_handlers']]
        if 'work_horse_killed_handler' in options:
            options['work_horse_killed_handler'] = import_attribute(options['work_horse_killed_handler'])
        connection = redis.Redis.from_url(order['url'] or default_url())
        worker = import_attribute(order['class'])(order['queues'], connection=connection, **options)
        reply['result'] = worker.work(**order['work'])
    except BaseException:
        reply['error'] = traceback.format_exc()
    reply['seconds'] = time.monotonic() - started
    return reply


if __name__ == '__main__':
    main()
