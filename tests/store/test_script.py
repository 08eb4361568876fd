"""How scripts are loaded and sent, and what every script file has to look like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import redis

from greenq.defaults import RQ_KEY_PREFIX
from greenq.store import keys, transitions
from greenq.store.script import Script, script
from tests.helpers import ROOT
from tests.store.situations import QUEUE, claim, enqueue, submission, waiting

STORE = ROOT / 'greenq' / 'store'
FOLDER = STORE / 'scripts'
SCRIPTS = sorted(path.stem for path in FOLDER.glob('*.lua'))
INCLUDES = sorted(path.stem for path in (FOLDER / 'include').glob('*.lua'))
SOURCES = {path: path.read_text(encoding='utf-8') for path in sorted(FOLDER.rglob('*.lua'))}


def header(name: str) -> str:
    """The comment that a script opens with, as one line."""
    lines: list[str] = []
    for line in SOURCES[FOLDER / f'{name}.lua'].splitlines():
        if not line.startswith('-- '):
            break
        lines.append(line.removeprefix('-- ').strip())
    return ' '.join(lines)


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_opens_with_purpose_keys_arguments_and_reply(name: str) -> None:
    source = SOURCES[FOLDER / f'{name}.lua']
    purpose = header(name)
    assert re.match(r'[A-Z].+\. KEYS: .+ Returns .+', purpose), purpose
    assert ('ARGV: ' in purpose) == ('ARGV' in source.replace('-- ARGV:', ''))


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_is_run_by_a_function_of_the_store_and_accepted_by_the_server(
    connection: redis.Redis, name: str
) -> None:
    callers = ''.join(path.read_text(encoding='utf-8') for path in STORE.glob('*.py'))
    assert f"script('{name}')" in callers
    assert connection.script_load(Script(name).source) == script(name).digest


def test_every_script_that_is_called_exists_and_every_include_is_used() -> None:
    callers = ''.join(path.read_text(encoding='utf-8') for path in STORE.glob('*.py'))
    assert set(re.findall(r"script\('(\w+)'\)", callers)) == set(SCRIPTS)
    used = {name for text in SOURCES.values() for name in re.findall(r'^--- @include (\w+)$', text, re.MULTILINE)}
    assert used == set(INCLUDES)


def test_scripts_are_installed_with_the_package() -> None:
    assert files('greenq.store').joinpath('scripts', 'claim.lua').is_file()


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.stem)
def test_a_script_spells_no_key(path: Path) -> None:
    code = '\n'.join(line.partition('--')[0] for line in SOURCES[path].splitlines())
    literals = re.findall(r"'([^']*)'", code)
    assert not [text for text in literals if re.match(rf'({re.escape(RQ_KEY_PREFIX)})?:', text) and text != ':']


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_builds_keys_only_by_functions_that_exist(name: str) -> None:
    known = {f'{template}_key' for template in keys.TEMPLATES}
    assert set(re.findall(r'\b(\w+_key)\b(?=\()', Script(name).source)) <= known


@pytest.mark.parametrize('name', SCRIPTS)
def test_an_include_is_resolved_once(name: str) -> None:
    functions = re.findall(r'^local function (\w+)', Script(name).source, re.MULTILINE)
    assert len(functions) == len(set(functions))
    assert '@include' not in Script(name).source


def test_templates_and_functions_agree() -> None:
    named = {
        'queue': keys.queue('x'),
        'dependencies': keys.dependencies('x'),
        'started': keys.registry('started', 'x'),
        'queue_workers': keys.workers('x'),
        'workers': keys.workers(),
        'held': keys.held('x'),
    }
    for name, key in named.items():
        assert key == RQ_KEY_PREFIX + keys.TEMPLATES[name].replace('{0}', 'x')
    assert keys.dependencies('x') == f'{RQ_KEY_PREFIX}:job::x:dependencies'


# ---- sending ----


def commands(client: redis.Redis) -> dict[str, int]:
    """How often each command was called since the last CONFIG RESETSTAT."""
    statistics = client.info('commandstats')
    return {name.removeprefix('cmdstat_'): entry['calls'] for name, entry in statistics.items()}


def test_a_script_is_sent_once_and_then_named_by_its_digest(connection: redis.Redis) -> None:
    connection.script_flush()
    connection.config_resetstat()
    for job_id in 'abc':
        enqueue(connection, job_id)
    counts = commands(connection)
    assert (counts['evalsha'], counts['eval']) == (3, 1)
    assert waiting(connection) == ['a', 'b', 'c']


@pytest.mark.parametrize('transaction', [False, True])
def test_a_pipeline_needs_no_script_to_be_loaded(connection: redis.Redis, transaction: bool) -> None:
    with connection.pipeline(transaction=transaction) as pipeline:
        for rounds in range(2):
            connection.script_flush()
            connection.config_resetstat()
            for job_id in 'abc':
                assert transitions.enqueue(pipeline, QUEUE, [submission(f'{job_id}{rounds}')]) == []
            assert transitions.cancel(pipeline, f'a{rounds}') == {}
            assert pipeline.execute()[:3] == [[b'queued']] * 3
            counts = commands(connection)
            assert (counts['evalsha'], counts['eval']) == (2, 2)
    assert waiting(connection) == ['b0', 'c0', 'b1', 'c1']


def test_a_pipeline_that_was_reset_sends_the_script_again(connection: redis.Redis) -> None:
    with connection.pipeline() as pipeline:
        transitions.enqueue(pipeline, QUEUE, [submission('dropped')])
        pipeline.reset()
        connection.script_flush()
        pipeline.ping()
        transitions.enqueue(pipeline, QUEUE, [submission('a')])
        transitions.enqueue(pipeline, QUEUE, [submission('b')])
        pipeline.execute()
    assert waiting(connection) == ['a', 'b']


def test_a_watching_pipeline_runs_at_once_and_in_its_transaction(connection: redis.Redis) -> None:
    connection.script_flush()
    with connection.pipeline() as pipeline:
        pipeline.watch('nothing')  # type: ignore[no-untyped-call]
        transitions.enqueue(pipeline, QUEUE, [submission('a')])
        assert waiting(connection) == ['a']
        connection.script_flush()
        pipeline.multi()
        transitions.enqueue(pipeline, QUEUE, [submission('b')])
        transitions.enqueue(pipeline, QUEUE, [submission('c')])
        assert waiting(connection) == ['a']
        pipeline.execute()
    assert waiting(connection) == ['a', 'b', 'c']


def test_every_transition_may_be_queued_in_a_pipeline(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b', 'c')
    (first, second) = claim(connection, 2)
    from tests.store.situations import WORKER, failed, finished, retried

    with connection.pipeline() as pipeline:
        assert transitions.schedule(pipeline, QUEUE, submission('d'), 1) == ''
        assert transitions.finish(pipeline, WORKER, [finished(first)]) == []
        assert transitions.fail(pipeline, WORKER, [failed(second)]) == []
        assert transitions.retry(pipeline, WORKER, [retried(first)]) == []
        assert transitions.cancel(pipeline, 'c') == {}
        assert transitions.requeue(pipeline, 'b', keys.registry('failed', QUEUE), QUEUE) is None
        assert transitions.enqueue_dependents(pipeline, 'a') == {}
        assert transitions.delete(pipeline, 'c') is False
        assert transitions.free_rate_slot(pipeline, 'narrow') == []
        replies = pipeline.execute()
    assert replies == [b'scheduled', [1], [1], [0], [b'queued', []], b'queued', [], 1, []]


# ---- the prefix ----

_PREFIXED = """
import sys
import redis
from greenq.store import keys
from tests.store import situations as s
client = redis.Redis.from_url(sys.argv[1])
s.join(client)
s.enqueue(client, 'a', 'b', rate_limit=('narrow', 2))
s.enqueue(client, 'child', dependency_ids=['b'])
a, b = s.claim(client, 2)
s.beat(client, [a, b])
s.transitions.finish(client, s.WORKER, [s.finished(a)])
s.end_lease(client)
s.recover(client)
s.transitions.cancel(client, 'b')
print(s.places(client, 'a'), s.places(client, 'b'), s.places(client, 'child'))
"""


@pytest.mark.parametrize('prefix', ['{app}', 'app:sub'])
def test_another_prefix(connection: redis.Redis, server_url: str, prefix: str) -> None:
    environment = {**os.environ, 'RQ_KEY_PREFIX': prefix}
    environment.pop('GREENQ_KEY_PREFIX', None)
    done = subprocess.run(
        [sys.executable, '-c', _PREFIXED, server_url],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    found = [key.decode() for key in connection.scan_iter()]
    connection.flushall()
    assert done.stdout == "['finished'] ['canceled'] ['deferred']\n", done.stderr
    assert found and [key for key in found if not key.startswith(f'{prefix}:')] == []
