"""Replay of one claimed run: history, steps, outcome, and the group commit they share.

Owns no process and no loop of its own; the worker above it does.
"""
