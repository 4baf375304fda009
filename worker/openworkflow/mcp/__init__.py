"""The namespace of a client as a server of the Model Context Protocol: `openworkflow mcp`.

Needs the extra `mcp`. It is the dashboard for programs: the same looks, actions and audit log.
"""

from openworkflow.mcp.server import mcp_server

__all__ = ["mcp_server"]
