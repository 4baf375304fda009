"""One visit of one resource, from what is observed to the status that is written.

Duty: bring the wings together, and decide nothing itself. What a visit works with is found out once
(`visit`), and every step of it is here in its order (`reconcile`).
"""
