"""The options that `greenq worker` and `greenq worker-pool` share: what only greenq's workers take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from greenq.cli.errors import CommandError
from greenq.defaults import CONCURRENT_ARGUMENTS, DEFAULT_CONCURRENCY, DEFAULT_GRACE_SECONDS

RULES = ('requeue', 'fail')

_OPTIONS = (
    click.option(
        '--concurrency',
        type=click.IntRange(min=1),
        help=f'Jobs that a gevent worker runs at once.  [default: {DEFAULT_CONCURRENCY}]',
    ),
    click.option(
        '--grace',
        type=click.FloatRange(min=0),
        help=f'Seconds that a gevent worker lets jobs go on when told to stop.  [default: {DEFAULT_GRACE_SECONDS}]',
    ),
    click.option(
        '--max-memory',
        type=click.IntRange(min=1),
        metavar='MIB',
        help='Replace a gevent worker whose process is larger than this, once its jobs are done.',
    ),
    click.option(
        '--max-age',
        type=click.FloatRange(min=0, min_open=True),
        metavar='SECONDS',
        help='Replace a gevent worker that is older than this, once its jobs are done.',
    ),
    click.option(
        '--block-warning',
        type=click.FloatRange(min=0),
        metavar='SECONDS',
        help='Log jobs that keep a gevent worker from running for longer than this; 0 logs none.  [default: 0.5]',
    ),
    click.option(
        '--on-lost',
        multiple=True,
        metavar='[QUEUE=]RULE',
        help='What becomes of a job whose worker dies: requeue or fail; with QUEUE= for one queue. May be repeated.  '
        '[default: requeue for gevent, fail for others]',
    ),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments that these options stand for: only what was given, because subclasses written for RQ
    take none of them."""
    given = {name: options[name] for name in CONCURRENT_ARGUMENTS if options[name] is not None}
    on_lost = _rules(options['on_lost'])
    return given | ({'on_lost': on_lost} if on_lost else {})


def _rules(values: Sequence[str]) -> str | dict[str | None, str] | None:
    """`requeue`, or, where queues are named, {queue: rule, None: the rule of the others}."""
    rules: dict[str | None, str] = {}
    for value in values:
        queue, _, rule = value.rpartition('=')
        if rule not in RULES:
            raise CommandError(f'--on-lost {value!r} is not allowed. Use {" or ".join(RULES)}, or QUEUE=RULE.')
        rules[queue or None] = rule
    return rules[None] if rules.keys() == {None} else rules or None
