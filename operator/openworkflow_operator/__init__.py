"""The Kubernetes operator of OpenWorkflow: makes and scales one fleet per WorkflowNamespace.

It owns no state: what it decides follows from the resources, the pods and the run counts in
PostgreSQL. It never imports `openworkflow`; the two meet in the container contract and in SQL.
"""
