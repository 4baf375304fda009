"""Decisions: how many pods, which build takes new runs, which resource acts, what to change.

Duty: pure functions from what was observed to a complete plan, and the types of both. It does no
I/O and reads no clock; times come in as numbers with the observation. Carrying a plan out is the
duty of `cluster` and `database`.
"""
