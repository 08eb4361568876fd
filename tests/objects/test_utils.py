"""Helpers: text, time, collections, and finding things by their dotted names."""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from greenq import utils
from greenq.exceptions import TimeoutFormatError
from greenq.utils import (
    Platform,
    as_text,
    backend_class,
    ceildiv,
    compact,
    current_timestamp,
    decode_redis_hash,
    deflate,
    ensure_job_list,
    first,
    get_call_string,
    get_connection_from_queues,
    get_platform,
    import_attribute,
    import_class,
    is_nonstring_iterable,
    normalize_config_path,
    parse_composite_key,
    parse_names,
    parse_timeout,
    resolve_function_reference,
    safe_json_dumps,
    split_list,
    str_to_date,
    truncate_long_string,
    utcformat,
    utcparse,
    validate_absolute_path,
)

# ---- text and collections ----


def test_a_random_uuid_is_one() -> None:
    ids = {utils.random_uuid() for _ in range(2000)}
    assert len(ids) == 2000 and {len(text) for text in ids} == {36}
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(4, uuid.RFC_4122)}
    assert {text[19] for text in ids} == set('89ab') and all(str(uuid.UUID(text)) == text for text in ids)


def test_as_text_decodes_and_refuses_by_name() -> None:
    assert (as_text('é'.encode()), as_text('é')) == ('é', 'é')
    with pytest.raises(ValueError, match='3'):
        as_text(3)  # type: ignore[arg-type]


def test_hash_keys_become_text_and_values_on_demand() -> None:
    assert decode_redis_hash({b'a': b'1', 'b': 2}) == {'a': b'1', 'b': 2}
    assert decode_redis_hash({b'a': b'1'}, decode_values=True) == {'a': '1'}
    with pytest.raises(ValueError):
        decode_redis_hash({b'a': 1}, decode_values=True)


def test_long_strings_show_that_they_were_cut() -> None:
    assert [truncate_long_string(text, 3) for text in ('12', '123', '1234')] == ['12', '123', '123...']
    assert truncate_long_string('x' * 9) == 'x' * 9


def test_a_call_reads_as_it_would_be_typed() -> None:
    assert get_call_string('f', ('a', 4), {'z': 1, 'b': None}) == "f('a', 4, b=None, z=1)"
    assert get_call_string('f', (123456,), {'k': 123456}, max_length=5) == 'f(12345..., k=12345...)'
    assert get_call_string(None, (), {}) is None


def test_json_that_cannot_be_is_a_placeholder() -> None:
    assert safe_json_dumps([1]) == '[1]'
    assert safe_json_dumps(object()) == '<not JSON serializable>'


def test_composite_keys_split_and_bare_ids_warn() -> None:
    assert parse_composite_key('job:execution') == ('job', 'execution')
    with pytest.deprecated_call(match='got job'):
        assert parse_composite_key('job') == ('job', '')


def test_collections() -> None:
    assert (first([0, 3, 4]), first([], 9), first([1, 2], key=lambda n: n > 1)) == (3, 9, 2)
    assert compact([1, None, 0]) == [1, 0]
    values: list[Any] = [[], (), {}, 'a', 1]
    assert [is_nonstring_iterable(value) for value in values] == [True, True, True, False, False]
    assert [ensure_job_list(value) for value in ('a', ['a'], ('a', 'b'), 3)] == [['a'], ['a'], ['a', 'b'], [3]]
    assert (ceildiv(12, 4), ceildiv(13, 4)) == (3, 4)
    assert list(split_list([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]


# ---- time ----


def test_now_is_aware_and_in_utc() -> None:
    assert utils.now().utcoffset() == timedelta(0)
    assert abs(current_timestamp() - time.time()) < 5


def test_times_are_written_as_rq_does() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
    expected = '2024-05-06T07:08:09.000010Z'
    assert utcformat(moment) == utcformat(moment.replace(tzinfo=None)) == expected
    assert utcformat(moment.astimezone(timezone(timedelta(hours=5)))) == expected
    assert utcformat(moment.astimezone(timezone(timedelta(0)))) == expected
    assert utcparse(expected) == moment


@pytest.mark.parametrize(
    'text', ['2024-05-06T07:08:09Z', '2024-05-06T07:08:09.000000Z', '2024-05-06 07:08:09', '2024-05-06T09:08:09+02:00']
)
def test_old_and_foreign_forms_are_read(text: str) -> None:
    parsed = utcparse(text)
    assert parsed == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert parsed.tzinfo is UTC


def test_a_field_may_be_bytes_but_not_empty() -> None:
    assert str_to_date(b'2024-05-06T07:08:09Z') == str_to_date('2024-05-06T07:08:09Z')
    for wrong in (b'', '', 'yesterday'):
        with pytest.raises(ValueError):
            str_to_date(wrong)


@pytest.mark.parametrize(
    ('given', 'seconds'),
    [(12, 12), ('12', 12), (2.9, 2), ('12s', 12), ('12m', 720), ('1h', 3600), ('1H', 3600), ('1d', 86400), (-1, -1)],
)
def test_timeouts_in_every_form(given: Any, seconds: int) -> None:
    assert parse_timeout(given) == seconds


def test_no_timeout_stays_none() -> None:
    assert parse_timeout(None) is None


@pytest.mark.parametrize('given', ['h12', 'h', '', '10k', '1.5h', [], float('inf'), b'5x'])
def test_a_timeout_that_makes_no_sense_is_named(given: Any) -> None:
    with pytest.raises(TimeoutFormatError) as caught:
        parse_timeout(given)
    assert repr(given) in str(caught.value)


# ---- importing by name ----


class Outer:
    class Inner:
        @staticmethod
        def static() -> str:
            return 'static'

    @classmethod
    def made(cls) -> type[Outer]:
        return cls

    def method(self) -> str:
        return 'method'

    def __call__(self) -> None:
        """Makes an instance callable."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty package `leaf_pkg` on the path; what a test imports from it is forgotten afterwards."""
    root = tmp_path / 'leaf_pkg'
    root.mkdir()
    (root / '__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield root
    for name in [name for name in sys.modules if name.startswith('leaf_pkg')]:
        del sys.modules[name]


def test_functions_classes_methods_and_builtins_are_found() -> None:
    assert import_attribute('greenq.utils.ceildiv') is ceildiv
    assert import_attribute(f'{__name__}.Outer.Inner.static')() == 'static'
    assert import_attribute(f'{__name__}.Outer.made')() is Outer
    assert import_attribute(f'{__name__}.Outer') is Outer
    assert import_attribute('len') is import_attribute('builtins.len') is len


@pytest.mark.parametrize(
    'name',
    ['no.such.module', 'greenq.utils.nothing', f'{__name__}.Outer.nothing', 'nothing', '', '.relative', 'a..b', 'os.'],
)
def test_what_does_not_exist_is_a_value_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match='Invalid attribute name') as caught:
        import_attribute(name)
    assert str(caught.value).endswith(name)


def test_a_module_is_imported_when_needed(package: Path) -> None:
    (package / 'tasks.py').write_text('class A:\n    @staticmethod\n    def f(): return 7\n')
    assert import_attribute('leaf_pkg.tasks.A.f')() == 7


def test_a_module_that_was_replaced_is_noticed(package: Path) -> None:
    (package / 'swapped.py').write_text('def f(): return 1\n')
    assert import_attribute('leaf_pkg.swapped.f')() == 1
    sys.modules['leaf_pkg.swapped'].f = lambda: 2  # type: ignore[attr-defined]
    assert import_attribute('leaf_pkg.swapped.f')() == 2


def test_an_import_error_inside_a_users_module_says_its_own(package: Path) -> None:
    (package / 'missing.py').write_text('import not_installed_anywhere\ndef f(): pass\n')
    (package / 'renamed.py').write_text('from os import no_such_name\ndef f(): pass\n')
    (package / 'broken.py').write_text('1 / 0\n')
    with pytest.raises(ModuleNotFoundError, match='not_installed_anywhere'):
        import_attribute('leaf_pkg.missing.f')
    with pytest.raises(ImportError, match='no_such_name'):
        import_attribute('leaf_pkg.renamed.f')
    with pytest.raises(ZeroDivisionError):
        import_attribute('leaf_pkg.broken.f')


def test_a_module_that_another_thread_is_importing_is_waited_for(package: Path) -> None:
    (package / 'slow.py').write_text(
        'import threading\n'
        'half = threading.Event()\n'
        'go = threading.Event()\n'
        'def f(): return VALUE\n'
        'half.set()\n'
        'go.wait(10)\n'
        'VALUE = 7\n'
    )
    importer = threading.Thread(target=import_attribute, args=('leaf_pkg.slow.f',))
    importer.start()
    while 'leaf_pkg.slow' not in sys.modules or not hasattr(sys.modules['leaf_pkg.slow'], 'half'):
        time.sleep(0)
    module = sys.modules['leaf_pkg.slow']
    assert module.half.wait(10)
    threading.Timer(0.05, module.go.set).start()
    assert import_attribute('leaf_pkg.slow.f')() == 7
    importer.join()


def test_classes_are_checked_against_their_base() -> None:
    assert import_class('collections.OrderedDict', 'builtins.dict', 'mapping').__name__ == 'OrderedDict'
    for name in ('datetime.datetime', 'greenq.utils.ceildiv', 'no.such.thing'):
        with pytest.raises(ValueError, match='Invalid'):
            import_class(name, 'builtins.dict', 'mapping')


def test_a_backend_class_can_be_overridden_by_object_or_path() -> None:
    assert backend_class(utils, 'Platform') is Platform
    assert backend_class(utils, 'Platform', override=Outer) is Outer
    assert backend_class(utils, 'Platform', override=f'{__name__}.Outer') is Outer


def test_references_are_an_instance_and_a_name() -> None:
    outer = Outer()
    assert resolve_function_reference('app.f') == (None, 'app.f')
    assert resolve_function_reference(ceildiv) == (None, 'greenq.utils.ceildiv')
    assert resolve_function_reference(Outer.Inner.static) == (None, f'{__name__}.Outer.Inner.static')
    assert resolve_function_reference(len) == (None, 'builtins.len')
    assert resolve_function_reference(outer.method) == (outer, 'method')
    assert resolve_function_reference(Outer.made) == (Outer, 'made')
    assert resolve_function_reference(outer) == (outer, '__call__')
    assert resolve_function_reference('abc'.upper) == ('abc', 'upper')
    for wrong in (Outer, 3, None):
        with pytest.raises(TypeError, match='Expected a callable or a string'):
            resolve_function_reference(wrong)


# ---- queues, paths, platforms ----


class NamedQueue:
    def __init__(self, name: str, connection: object = None) -> None:
        self.name = name
        self.connection = connection


def test_names_and_connections_of_queues_and_names_mixed() -> None:
    connection = object()
    mixed: Any = ['high', NamedQueue('low', connection), NamedQueue('last', object())]
    assert parse_names(mixed) == ['high', 'low', 'last']
    assert get_connection_from_queues(mixed) is connection
    assert get_connection_from_queues(['high']) is None


@pytest.mark.parametrize(
    ('given', 'module'),
    [
        ('app.cron', 'app.cron'),
        ('app/cron.py', 'app.cron'),
        ('app/cron', 'app.cron'),
        ('/srv/app/cron.py', 'srv.app.cron'),
        ('cron.py', 'cron'),
    ],
)
def test_a_configuration_may_be_a_file_or_a_module(given: str, module: str) -> None:
    assert normalize_config_path(given) == module


def test_an_absolute_path_must_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.touch()
    assert validate_absolute_path(str(file)) == str(file)
    with pytest.raises(FileNotFoundError, match='missing'):
        validate_absolute_path(str(tmp_path / 'missing'))
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        validate_absolute_path(str(tmp_path))


@pytest.mark.parametrize(
    ('name', 'family'),
    [('win32', 'windows'), ('darwin', 'mac'), ('LINUX', 'linux'), ('cygwin', 'others'), ('freebsd14', 'others')],
)
def test_platform_families(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'platform', name)
    assert get_platform() is Platform(family)


def test_data_are_deflated_as_zlib_does() -> None:
    chance = random.Random(5)
    for size in (*range(600), *(chance.randrange(600, 5000) for _ in range(200))):
        repetitive = bytes(n * n % 251 for n in range(size))
        for data in (repetitive, chance.randbytes(size), bytes(chance.choices(b'abc ', k=size))):
            assert zlib.decompress(deflate(data)) == data
            if 'ng' not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng finds other ways for other windows
                assert deflate(data) == zlib.compress(data)
