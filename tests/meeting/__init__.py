"""Odd but legal programs in which the features meet asyncio, and what is tried with each."""
