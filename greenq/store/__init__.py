"""The only layer that talks to Redis: keys, the job hash, Lua transitions and multi-key reads."""
