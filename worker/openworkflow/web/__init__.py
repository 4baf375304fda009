"""The dashboard: what runs do and why they wait, for people. Needs the extra `dashboard`."""

from openworkflow.web.app import dashboard
from openworkflow.web.auth import Auth, Caller, Loopback, ProxyHeader, Role, Tokens

__all__ = ["Auth", "Caller", "Loopback", "ProxyHeader", "Role", "Tokens", "dashboard"]
