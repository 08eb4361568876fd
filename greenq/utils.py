"""Small helpers that know nothing of jobs, queues or workers beyond their names, and keep no state."""

from __future__ import annotations

import builtins
import importlib
import inspect
import json
import os
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import ResponseError

from greenq.exceptions import TimeoutFormatError

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Job
    from greenq.queue import Queue
    from greenq.worker import BaseWorker

T = TypeVar('T')

# ---- text ----

#: Data up to here (bytes) are compressed with a window of their own size.
_SMALL = 3000
#: Of zlib data with the usual window and level (RFC 1950).
_ZLIB_HEADER = b'\x78\x9c'


def deflate(data: bytes) -> bytes:
    """What `zlib.compress` makes of the data, byte for byte, sooner: most jobs are so small that clearing zlib's usual
    256 KiB takes longer than all else that enqueueing does in Python."""
    if len(data) > _SMALL:
        return zlib.compress(data)
    # zlib looks back 262 bytes less than its window, and a block of it is 64 << memLevel symbols long: neither is felt.
    window_bits = max(9, (len(data) + 262).bit_length())
    compressor = zlib.compressobj(wbits=-window_bits, memLevel=max(1, len(data).bit_length() - 6))
    checksum = zlib.adler32(data).to_bytes(4, 'big')
    return _ZLIB_HEADER + compressor.compress(data) + compressor.flush() + checksum


def random_uuid() -> str:
    """The text of a random UUID (RFC 9562, version 4), in less than half the time that `uuid.uuid4` takes."""
    digits = os.urandom(16).hex()
    variant = '89ab'[int(digits[16], 16) & 3]
    return f'{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}'


def as_text(value: bytes | str) -> str:
    """Decode UTF-8 bytes; return a string as it is. Anything else is a ValueError."""
    if isinstance(value, bytes):
        return value.decode('utf-8')
    if isinstance(value, str):
        return value
    raise ValueError(f'Unknown type {type(value)!r}: pass bytes or str, not {value!r}')


def decode_redis_hash(raw: Mapping[Any, Any], *, decode_values: bool = False) -> dict[str, Any]:
    """The same hash with its keys, and if asked its values, as text."""
    if decode_values:
        return {as_text(key): as_text(value) for key, value in raw.items()}
    return {as_text(key): value for key, value in raw.items()}


def truncate_long_string(data: str, max_length: int | None = None) -> str:
    """Cut after `max_length` characters, and show it with `...`."""
    if max_length is None or len(data) <= max_length:
        return data
    return data[:max_length] + '...'


def get_call_string(
    func_name: str | None, args: Iterable[Any], kwargs: Mapping[str, Any], max_length: int | None = None
) -> str | None:
    """The call as one would type it, `f(1, name='x')`; keywords are sorted, long values cut. None without a name."""
    if func_name is None:
        return None
    positional = [truncate_long_string(repr(arg), max_length) for arg in args]
    named = sorted(f'{key}={truncate_long_string(repr(value), max_length)}' for key, value in kwargs.items())
    return f'{func_name}({", ".join(positional + named)})'


NOT_JSON_SERIALIZABLE = '<not JSON serializable>'


def safe_json_dumps(value: Any) -> str:
    """JSON, or a placeholder for what JSON cannot express."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return NOT_JSON_SERIALIZABLE


def parse_composite_key(composite_key: str) -> tuple[str, str]:
    """Split `job_id:execution_id`, as the started registry has them. A bare job id, from an old RQ, warns."""
    job_id, _, execution_id = composite_key.partition(':')
    if not execution_id:
        message = f'Composite key must contain job_id:execution_id, got {composite_key}'
        warnings.warn(message, DeprecationWarning, stacklevel=2)
    return job_id, execution_id


# ---- collections ----


def first(iterable: Iterable[T], default: T | None = None, key: Callable[[T], Any] | None = None) -> T | None:
    """The first item that is true, or for which `key` is; else `default`."""
    return next((item for item in iterable if (key(item) if key else item)), default)


def compact(items: Iterable[T | None]) -> list[T]:
    """All items but the Nones."""
    return [item for item in items if item is not None]


def is_nonstring_iterable(obj: Any) -> bool:
    """Whether `obj` can be iterated over and is not a string."""
    return isinstance(obj, Iterable) and not isinstance(obj, str)


def ensure_job_list(obj: Any) -> list[Any]:
    """A list of what an iterable yields; of `obj` alone when it is a string or no iterable."""
    return list(obj) if is_nonstring_iterable(obj) else [obj]


def ceildiv(a: int, b: int) -> int:
    """Division, rounded up."""
    return -(-a // b)


def split_list(items: Sequence[T], segment_size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most `segment_size` items."""
    for start in range(0, len(items), segment_size):
        yield items[start : start + segment_size]


# ---- time ----


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


utcnow = now


def current_timestamp() -> int:
    """Whole seconds since the epoch."""
    return int(time.time())


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The second that was formatted last, and its text: workers format thousands of moments in each.
_last_second = (-1, '')


def utcformat(moment: datetime) -> str:
    """As RQ stores it: `2024-05-06T07:08:09.000010Z`. A naive datetime counts as UTC."""
    global _last_second
    if moment.tzinfo is not UTC:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    since = moment - _EPOCH
    second = since.days * 86400 + since.seconds
    known, text = _last_second
    if second != known:
        text = moment.isoformat('T', 'seconds')[:19]
        _last_second = second, text
    return f'{text}.{moment.microsecond:06}Z'


def utcparse(text: str) -> datetime:
    """Read what `utcformat`, or any older RQ, has written. Aware, in UTC; ValueError for what is no time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def str_to_date(value: bytes | str) -> datetime:
    """`utcparse` for a field as it comes from Redis; ValueError when it is empty."""
    if not value:
        raise ValueError(f'Empty string or bytestring provided: {value!r} is not a time')
    return utcparse(as_text(value))


_UNIT_SECONDS = {'d': 86400, 'h': 3600, 'm': 60, 's': 1}


def parse_timeout(timeout: float | str | None) -> int | None:
    """Seconds as an int, from a number, `'90'`, `'5s'`, `'3m'`, `'1h'` or `'1d'`. None stays None."""
    if timeout is None:
        return None
    try:
        return int(timeout)
    except (ValueError, TypeError, OverflowError):
        pass
    try:
        text = cast(str, timeout)
        return int(text[:-1]) * _UNIT_SECONDS[text[-1:].lower()]
    except (ValueError, TypeError, KeyError):
        raise TimeoutFormatError(
            f'Invalid timeout {timeout!r}: pass seconds as a number, or digits and d, h, m or s, such as "1h" or "23m"'
        ) from None


def parse_intervals(interval: float | Iterable[float], name: str) -> list[int]:
    """The seconds between attempts as a list; `name` is the argument that an error speaks of."""
    intervals = [interval] if isinstance(interval, int | float) else interval
    if not is_nonstring_iterable(intervals):
        raise TypeError(f'{name} must be an int or iterable of ints, not {interval!r}')
    listed = list(cast(Iterable[int], intervals))
    if any(seconds < 0 for seconds in listed):
        raise ValueError(f'{name}: negative numbers are not allowed, got {interval!r}')
    return listed


# ---- importing by name ----


def import_attribute(name: str) -> Any:
    """What a dotted path names: a function, a class, a method (`pkg.module.Class.method`), or a builtin (`len`).

    Raises ValueError if there is no such thing. An error raised while a module that does exist is imported is
    passed on as it is, because its own message is what its author needs.
    """
    module_name, _, attribute = name.rpartition('.')
    module = sys.modules.get(module_name)
    if module is not None and not _is_half_imported(module):
        try:
            return getattr(module, attribute)
        except AttributeError:
            pass
    return _import_attribute_slowly(name)


def _is_half_imported(module: ModuleType) -> bool:
    # Another thread or greenlet may be in the middle of importing it: what it has defined so far can be called
    # before the globals that it needs exist.
    return getattr(getattr(module, '__spec__', None), '_initializing', False)


def _import_attribute_slowly(name: str) -> Any:
    bits = name.split('.')
    if not all(bits):
        raise ValueError(f'Invalid attribute name: {name}')
    for length in range(len(bits) - 1, 0, -1):
        module = _import_if_exists('.'.join(bits[:length]))
        if module is not None:
            return _walk(module, bits[length:], name)
    return _walk(builtins, bits, name)


def _import_if_exists(module_name: str) -> ModuleType | None:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is not None and (missing == module_name or module_name.startswith(missing + '.')):
            return None
        raise


def _walk(owner: Any, attributes: Iterable[str], name: str) -> Any:
    for attribute in attributes:
        try:
            owner = getattr(owner, attribute)
        except AttributeError:
            raise ValueError(f'Invalid attribute name: {name}') from None
    return owner


def import_class(name: str, base: str, kind: str) -> type[Any]:
    """The class that a dotted path names; ValueError unless it is a subclass of `base`.

    `base` is a dotted path too, which lets this layer name classes of the layers above it.
    """
    found = import_attribute(name)
    if not isinstance(found, type) or not issubclass(found, import_attribute(base)):
        raise ValueError(f'Invalid {kind} class: {name} is not a subclass of {base}')
    return found


def import_job_class(name: str) -> type[Job]:
    """A subclass of `Job`, by its dotted path."""
    return import_class(name, 'greenq.job.Job', 'job')


def import_queue_class(name: str) -> type[Queue]:
    """A subclass of `Queue`, by its dotted path."""
    return import_class(name, 'greenq.queue.Queue', 'queue')


def import_worker_class(name: str) -> type[BaseWorker]:
    """A subclass of `BaseWorker`, by its dotted path."""
    return import_class(name, 'greenq.worker.BaseWorker', 'worker')


def backend_class(holder: Any, default_name: str, override: str | type[Any] | None = None) -> type[Any]:
    """`override`, imported if it is a path; without one, the class that `holder` has under `default_name`."""
    if override is None:
        return cast(type[Any], getattr(holder, default_name))
    if isinstance(override, str):
        return cast(type[Any], import_attribute(override))
    return override


def resolve_function_reference(func: Any) -> tuple[Any, str]:
    """How a job names what it calls: (instance or None, the function's dotted path or the method's name).

    TypeError for what can be neither called nor imported.
    """
    if isinstance(func, str):
        return None, func
    if inspect.ismethod(func):
        return func.__self__, func.__name__
    if inspect.isbuiltin(func) and not isinstance(func.__self__, ModuleType):
        return func.__self__, func.__name__
    if inspect.isfunction(func) or inspect.isbuiltin(func):
        return None, f'{func.__module__}.{func.__qualname__}'
    if callable(func) and not inspect.isclass(func):
        return func, '__call__'
    raise TypeError(f'Expected a callable or a string, but got: {func!r}')


# ---- queues and servers ----


def parse_names(queues_or_names: Iterable[str | Queue]) -> list[str]:
    """Queue names, of queues and names mixed."""
    return [str(item) if isinstance(item, str) else str(getattr(item, 'name', item)) for item in queues_or_names]


def get_connection_from_queues(queues_or_names: Iterable[str | Queue]) -> Redis | None:
    """The connection of the first item that has one."""
    connections = (getattr(item, 'connection', None) for item in queues_or_names)
    return next((connection for connection in connections if connection is not None), None)


_OLDEST_SUPPORTED = (6, 2, 0)


def get_version(connection: Redis) -> tuple[int, int, int]:
    """The server's version, asked once per client. Where INFO is refused: the oldest that greenq supports."""
    cached: tuple[int, int, int] | None = getattr(connection, '_greenq_server_version', None)
    if cached is not None:
        return cached
    try:
        # Some services report a float, or only two numbers.
        text = str(connection.info('server')['redis_version'])
    except ResponseError:
        return _OLDEST_SUPPORTED
    major, minor, patch = ([int(number) for number in re.findall(r'\d+', text)] + [0, 0])[:3]
    version = (major, minor, patch)
    connection._greenq_server_version = version  # type: ignore[attr-defined]
    return version


def missing_keys(connection: Redis, keys: Sequence[str]) -> list[str]:
    """Those of `keys` that do not exist. One round trip when all do, two when some do not."""
    if not keys or connection.exists(*keys) == len(keys):
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        found = pipeline.execute()
    return [key for key, exists in zip(keys, found, strict=True) if not exists]


# ---- paths and platforms ----


def normalize_config_path(config_path: str) -> str:
    """The dotted module name of a configuration that may be given as a file: `app/cron.py` is `app.cron`."""
    if os.path.sep not in config_path and not config_path.endswith('.py'):
        return config_path
    return config_path.removesuffix('.py').removeprefix(os.path.sep).replace(os.path.sep, '.')


def validate_absolute_path(file_path: str) -> str:
    """The path itself if it is a file; FileNotFoundError or IsADirectoryError otherwise."""
    if not os.path.exists(file_path):
        raise FileNotFoundError(f"Configuration file not found at '{file_path}'")
    if not os.path.isfile(file_path):
        raise IsADirectoryError(f"Configuration path points to a directory, not a file: '{file_path}'")
    return file_path


class Platform(Enum):
    """Families of operating systems."""

    WINDOWS = 'windows'
    MAC = 'mac'
    LINUX = 'linux'
    OTHERS = 'others'


def get_platform() -> Platform:
    """The family of the system that this process runs on."""
    prefixes = {'win': Platform.WINDOWS, 'darwin': Platform.MAC, 'linux': Platform.LINUX}
    name = sys.platform.lower()
    return next((family for prefix, family in prefixes.items() if name.startswith(prefix)), Platform.OTHERS)
