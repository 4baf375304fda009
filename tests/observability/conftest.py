"""The operator of tests/operator_api, on the same kind of API server."""

from tests.operator_api.conftest import client, plane, space, start, tenant

__all__ = ["client", "plane", "space", "start", "tenant"]
