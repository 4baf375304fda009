"""The custom resource as its owner wrote it, the names that others rely on, and Kubernetes' kinds.

Duty: one typed shape for what users declare, from the object to `WorkflowNamespace`. It decides
nothing, does no I/O and imports no other wing; every other wing speaks its words.
"""
