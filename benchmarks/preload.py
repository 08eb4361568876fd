"""A settings module for workers that fork for each job (`-c benchmarks.preload`): imports once what jobs need."""

import importlib

from benchmarks import setting

for _name in ('benchmarks.jobs', *setting.PRELOAD):
    importlib.import_module(_name)
