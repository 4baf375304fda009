"""What the worker and the operator both say to PostgreSQL, written once.

Duty: statements that change who takes new runs and what becomes of the runs of a retired build, the
channels of wake-ups, and the errors that both write. Both import it, and it imports neither of
them, nor any driver: it is text, and how text is loaded.
"""
