"""All talk with the Kubernetes API: reading, watching, applying, Events, Secrets and the Lease.

Duty: an up-to-date store of what the operator watches, and plans carried out object by object.
Only its `client` makes requests; the others call that. It decides nothing.
"""
