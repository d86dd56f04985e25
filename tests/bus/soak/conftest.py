"""The service that is soaked: the one of the other tests of the service."""

from service.conftest import client, connected, directory, images, service  # noqa: F401
