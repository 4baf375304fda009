"""The worker process: what claims, executes, keeps leases alive and answers probes."""
