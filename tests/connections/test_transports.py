"""TLS and unix sockets, from URL to finished job."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from greenq import Queue
from greenq.connections import connect
from greenq.job import JobStatus
from tests.connections import jobs
from tests.connections.commands import running_worker
from tests.connections.servers import HOST, Server, free_port, has_tls, needs_server
from tests.helpers import run_cli, wait_until

pytestmark = needs_server

WORKERS = ['greenq.GeventWorker', 'greenq.Worker', 'greenq.SpawnWorker']


class Certificates(NamedTuple):
    """Files of an authority of the tests' own, and of a server and a client that it vouches for."""

    authority: Path
    certificate: Path
    key: Path


def _make_certificates(folder: Path) -> Certificates:
    def openssl(*args: str) -> None:
        subprocess.run(['openssl', *args], cwd=folder, check=True, capture_output=True, timeout=30)

    curve = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes')
    usage = ('-addext', 'keyUsage=critical,keyCertSign,cRLSign')
    openssl('req', '-x509', *curve, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=greenq', *usage)
    openssl('req', *curve, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=localhost')
    (folder / 'names').write_text(
        'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n'
        'authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n'
    )
    signing = ('-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names')
    openssl('x509', '-req', '-in', 'server.csr', '-out', 'server.crt', *signing)
    return Certificates(folder / 'ca.crt', folder / 'server.crt', folder / 'server.key')


class Secured(NamedTuple):
    port: int
    certificates: Certificates

    def url(self, **options: object) -> str:
        query = '&'.join(f'{name}={value}' for name, value in options.items())
        return f'rediss://{HOST}:{self.port}' + (f'?{query}' if query else '')

    @property
    def trusted_url(self) -> str:
        return self.url(ssl_ca_certs=self.certificates.authority)


@pytest.fixture(scope='module')
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if shutil.which('openssl') is None:
        pytest.skip('no openssl on the PATH to make certificates with')
    if not has_tls():
        pytest.skip('the redis-server on the PATH was built without TLS')
    certificates = _make_certificates(tmp_path_factory.mktemp('certificates'))
    port = free_port()
    server = Server(
        tmp_path_factory.mktemp('secured'),
        port,
        'port 0',
        f'tls-port {port}',
        f'tls-cert-file {certificates.certificate}',
        f'tls-key-file {certificates.key}',
        f'tls-ca-cert-file {certificates.authority}',
        'tls-auth-clients no',
    )
    found = Secured(port, certificates)
    try:
        server.wait_until_ready(redis.Redis.from_url(found.trusted_url))
        yield found
    finally:
        server.stop()


@pytest.fixture(scope='module')
def socket_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp('socket')
    path = folder / 'redis.sock'
    server = Server(folder, 0, 'port 0', f'unixsocket {path}')
    url = f'unix://{path}'
    try:
        server.wait_until_ready(redis.Redis.from_url(url))
        yield f'{url}?db=1'
    finally:
        server.stop()


@pytest.mark.parametrize('worker_class', WORKERS)
def test_jobs_run_over_tls(secured: Secured, worker_class: str) -> None:
    _assert_jobs_run(secured.trusted_url, worker_class)


@pytest.mark.parametrize('worker_class', WORKERS)
def test_jobs_run_over_a_unix_socket(socket_url: str, worker_class: str) -> None:
    _assert_jobs_run(socket_url, worker_class)


def _assert_jobs_run(url: str, worker_class: str) -> None:
    with connect(url) as connection, running_worker('-u', url, '-w', worker_class):
        job = Queue(connection=connection).enqueue(jobs.add, 2, 3)
        wait_until(lambda: job.get_status() == JobStatus.FINISHED, 15, description='the job is finished')
        assert job.return_value() == 5


def test_a_settings_file_describes_tls(secured: Secured, tmp_path: Path) -> None:
    settings = tmp_path / 'secured_settings.py'
    settings.write_text(
        f'REDIS_HOST = {HOST!r}\nREDIS_PORT = {secured.port}\nREDIS_SSL = True\n'
        f'REDIS_SSL_CA_CERTS = {str(secured.certificates.authority)!r}\n'
    )
    done = run_cli('enqueue', '-c', str(settings), 'tests.connections.jobs.add', env={'GREENQ_REDIS_URL': None})
    assert done.returncode == 0, done.stderr
    with connect(secured.trusted_url) as connection:
        assert Queue(connection=connection).empty() == 1


def test_a_server_that_nobody_vouches_for_is_refused_in_one_line(secured: Secured) -> None:
    refused = run_cli('info', '-u', secured.url())
    assert refused.returncode == 1
    assert 'certificate verify failed' in refused.stderr.lower()
    assert refused.stderr.count('\n') == 1


def test_a_plain_url_to_a_tls_port_is_refused_in_one_line(secured: Secured) -> None:
    refused = run_cli('info', '-u', f'redis://{HOST}:{secured.port}')
    assert refused.returncode == 1
    assert f'{HOST}:{secured.port}' in refused.stderr
    assert refused.stderr.count('\n') == 1
