"""The Kubernetes operator of OpenWorkflow: makes and scales one fleet per WorkflowNamespace.

It owns no state: what it decides follows from the resources, the pods and the run counts in
PostgreSQL. It never imports `openworkflow`; the two meet in the container contract and in SQL.

Six wings, whose folders state their duties; a wing imports only from those on the lines below it:

    cluster               the Kubernetes API
    database · report     tenants' databases · what users and Prometheus are told
    decide                plans, pure
    desired               manifests, pure
    api                   the custom resource, pure

The modules beside them are the process: it starts, queues, and reconciles one resource at a time.
"""
