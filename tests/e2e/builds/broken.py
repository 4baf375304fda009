"""A build whose workers cannot start."""

raise RuntimeError("this build is broken")
