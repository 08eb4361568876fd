"""Flag, environment, settings file, default: which one wins, and what settings mean. Nothing here connects."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.sentinel import SentinelConnectionPool

from greenq import SimpleWorker
from greenq.cli.config import Config, full_name, load_settings, read_config
from greenq.cli.connection import connection_from_settings, open_connection
from greenq.cli.errors import CommandError, describe_server, one_line
from greenq.exceptions import ConfigurationError, EmbeddedServerError

_VARIABLES = ('GREENQ_REDIS_URL', 'RQ_REDIS_URL', 'REDIS_URL', 'REDIS_HOST', 'REDIS_PORT', 'REDIS_DB', 'REDIS_SSL')


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that can be imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def _options(connection: Redis) -> dict[str, Any]:
    return connection.connection_pool.connection_kwargs


# ---- the connection ----


def test_a_url_beats_settings_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REDIS_URL', 'redis://environment:1/1')
    connection = open_connection('redis://flag:2/2', {'REDIS_URL': 'redis://settings:3/3'}, Redis)
    assert describe_server(connection) == 'redis://flag:2/2'


def test_settings_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REDIS_URL', 'redis://environment:1/1')
    assert describe_server(open_connection(None, {'REDIS_HOST': 'settings'}, Redis)) == 'redis://settings:6379/0'


def test_the_environment_is_read_like_a_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REDIS_HOST', 'environment')
    monkeypatch.setenv('REDIS_PORT', '7000')
    monkeypatch.setenv('REDIS_DB', '3')
    monkeypatch.setenv('REDIS_SSL', 'yes')
    connection = open_connection(None, {'QUEUES': ['high']}, Redis)
    assert describe_server(connection) == 'rediss://environment:7000/3'


def test_without_anything_it_is_redis_on_this_machine() -> None:
    assert describe_server(open_connection(None, {}, Redis)) == 'redis://localhost:6379/0'


def test_redis_url_beats_sentinel_beats_host() -> None:
    settings: dict[str, Any] = {'REDIS_HOST': 'host', 'REDIS_PASSWORD': 'secret', 'REDIS_DB': 2}
    by_host = connection_from_settings(settings, Redis)
    assert (_options(by_host)['host'], _options(by_host)['password'], _options(by_host)['db']) == ('host', 'secret', 2)
    settings['SENTINEL'] = {
        'INSTANCES': [('sentinel', 1234)],
        'MASTER_NAME': 'main',
        'PASSWORD': 'secret',
        'DB': 5,
        'SOCKET_TIMEOUT': 7,
        'CONNECTION_KWARGS': {'client_name': 'me'},
        'SENTINEL_KWARGS': {'password': 'other'},
    }
    by_sentinel = connection_from_settings(settings, Redis)
    pool = by_sentinel.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert (pool.service_name, describe_server(by_sentinel)) == ('main', "sentinel service 'main'")
    options = _options(by_sentinel)
    assert (options['db'], options['socket_timeout'], options['client_name']) == (5, 7, 'me')
    watcher = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
    assert (watcher['host'], watcher['port'], watcher['password']) == ('sentinel', 1234, 'other')
    settings['REDIS_URL'] = 'redis://url:1/1'
    assert describe_server(connection_from_settings(settings, Redis)) == 'redis://url:1/1'


def test_tls_settings_reach_the_connections() -> None:
    settings = {'REDIS_SSL': True, 'REDIS_SSL_CA_CERTS': '/ca.pem', 'REDIS_SSL_CERT_REQS': 'none'}
    options = _options(connection_from_settings(settings, Redis))
    assert (options['ssl_ca_certs'], options['ssl_cert_reqs']) == ('/ca.pem', 'none')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'REDIS_PORT': 'x'}, "Invalid REDIS_PORT 'x'"),
        ({'REDIS_DB': 'x'}, "Invalid REDIS_DB 'x'"),
        ({'REDIS_SSL': 'maybe'}, "Invalid REDIS_SSL 'maybe'"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        connection_from_settings(settings, Redis)


class Client(Redis):
    """A user's own client class."""


def test_a_connection_class_is_used_for_every_kind_of_setting() -> None:
    sentinel = {'SENTINEL': {'INSTANCES': [('s', 1)]}}
    for settings in ({'REDIS_URL': 'redis://h:1'}, {'REDIS_HOST': 'h'}, sentinel):
        assert type(connection_from_settings(settings, Client)) is Client


@pytest.mark.parametrize('connection_class', [Redis, Client])
def test_a_wrong_url_is_refused_without_showing_its_password(connection_class: type[Redis]) -> None:
    with pytest.raises((ConfigurationError, CommandError), match='is not a Redis URL') as caught:
        open_connection('http://user:secret@host', {}, connection_class)
    assert 'secret' not in str(caught.value)


def test_the_address_of_a_socket_is_shown_as_a_url() -> None:
    assert describe_server(Redis.from_url('unix:///run/redis.sock?db=2')) == 'unix:///run/redis.sock?db=2'


# ---- settings files ----


def test_settings_are_the_upper_case_names_of_a_module_or_a_file(project: Path) -> None:
    (project / 'app').mkdir()
    (project / 'app' / 'conf_a.py').write_text("import os\nREDIS_HOST = 'h'\n_PRIVATE = 1\nlower = 2\n")
    for name in ('app.conf_a', 'app/conf_a.py', 'app/conf_a', str(project / 'app' / 'conf_a.py')):
        assert load_settings(name) == {'REDIS_HOST': 'h'}


def test_settings_that_cannot_be_loaded_say_why(project: Path) -> None:
    (project / 'conf_b.py').write_text("raise KeyError('HOME_OF_REDIS')\n")
    with pytest.raises(CommandError, match=r"from 'no_such_conf'.*No module named"):
        load_settings('no_such_conf')
    with pytest.raises(CommandError, match=r"from './no.py'.*no such file"):
        load_settings('./no.py')
    with pytest.raises(CommandError, match="from 'conf_b': KeyError: 'HOME_OF_REDIS'"):
        load_settings('conf_b')


def test_a_flag_beats_the_settings_which_beat_the_default(project: Path) -> None:
    (project / 'conf_c.py').write_text("WORKER_CLASS = 'simple'\nSERIALIZER = 'json'\n")
    config = read_config(config='conf_c', path=['.'], serializer='pickle')
    assert config.worker_class_name == 'simple'
    assert config.worker_class is SimpleWorker
    assert config.serializer_name == 'pickle'
    assert config.job_class_name == 'greenq.job.Job'


def test_the_import_path_is_extended_once_by_absolute_directories(project: Path) -> None:
    (project / 'lib').mkdir()
    read_config(path=['lib'])
    read_config(path=['lib'])
    assert sys.path.count(str(project / 'lib')) == 1


# ---- classes ----


def test_short_names_and_names_of_rq_mean_greenq() -> None:
    assert full_name('gevent') == 'greenq.GeventWorker'
    assert full_name('rq.serializers.JSONSerializer') == 'greenq.serializers.JSONSerializer'
    assert full_name('rqueue.Worker') == 'rqueue.Worker'


@pytest.mark.parametrize(
    ('field', 'attribute', 'value', 'message'),
    [
        ('connection_class_name', 'connection_class', 'no.such', "Cannot import connection class 'no.such'"),
        ('connection_class_name', 'connection_class', 'os.path.join', "'os.path.join' is not a connection class"),
        ('connection_class_name', 'connection_class', 'decimal.Decimal', 'does not inherit from redis.Redis'),
        ('serializer_name', 'serializer', 'yaml', "Cannot use serializer 'yaml'.*json, pickle"),
        ('serializer_name', 'serializer', 'decimal.Decimal', "Cannot use serializer 'decimal.Decimal'"),
    ],
)
def test_a_wrong_class_is_named_with_its_option(field: str, attribute: str, value: str, message: str) -> None:
    config = Config(url=None, settings={}, **{field: value})
    with pytest.raises(CommandError, match=message):
        getattr(config, attribute)


def test_messages_are_one_line() -> None:
    assert one_line(EmbeddedServerError('a\n  b.')) == 'a b'
    assert one_line(KeyError('x')) == "KeyError: 'x'"
    assert one_line(ValueError()) == 'ValueError'
