"""RQ's path of its Lua scripts. greenq's own are files below `greenq/store`, each with a function in its transitions;
RQ's helpers around its own (`save_unique_job`, `acquire_or_refresh_lock`...) have no counterpart here."""

from greenq.defaults import RQ_KEY_PREFIX
from greenq.exceptions import DuplicateJobError

__all__ = ['RQ_KEY_PREFIX', 'DuplicateJobError']
