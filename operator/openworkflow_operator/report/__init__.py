"""What users, Prometheus and probes are told: conditions, status, metrics, health.

Duty: to turn what was observed and decided into words and numbers. Types, reasons and the names of
metrics are part of the API. It changes nothing in the cluster or a database.
"""
