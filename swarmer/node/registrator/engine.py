"""Asking the docker engine, over a connection that is made anew when it broke."""

from typing import Any, Final

import docker
import docker.errors
import requests
import urllib3.exceptions

from swarmer.node.patience import patient

#: Seconds until an engine that says nothing counts as away.
TIMEOUT: Final = round(patient(10))

#: What a docker engine that restarts, is slow or is away makes its client raise.
UNREACHABLE: Final = (
    docker.errors.DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)


class DockerAway(Exception):
    """The docker engine doesn't answer; another try may succeed."""


class Refused(DockerAway):
    """Docker answered with an error."""


class Missing(Refused):
    """Docker knows no such container."""


class Engine:
    """A docker engine. Not to be shared by threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = None

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of docker's client.

        Raises:
            DockerAway: there was no answer, or (Missing, Refused) an error.
        """
        try:
            if self._client is None:
                self._client = docker.APIClient(base_url=self.url, version="auto", timeout=TIMEOUT)
            return getattr(self._client, method)(*arguments, **options)
        except docker.errors.NotFound as error:
            raise Missing(str(error)) from error
        except docker.errors.APIError as error:
            raise Refused(str(error)) from error
        except UNREACHABLE as error:
            if self._client is not None:
                self._client.close()
                self._client = None
            raise DockerAway(type(error).__name__) from error
