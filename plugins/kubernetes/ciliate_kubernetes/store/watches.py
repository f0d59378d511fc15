"""Watches without end: begun anew where they ended, with longer and longer pauses while that fails."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator

from ciliate.backoff import Backoff
from ciliate.store import MissingKindError, UnavailableError, WatchEvent

from ciliate_kubernetes.store.conditions import Conditions
from ciliate_kubernetes.store.config import Options
from ciliate_kubernetes.store.events import parse_event
from ciliate_kubernetes.store.requests import Request, Requests
from ciliate_kubernetes.store.resources import Wanted, asked, resource, target

_SOUND = 1.0
"""Seconds that a watch must have lasted for the next to follow at once."""


class Watches:
    """Watches of one process."""

    def __init__(self, requests: Requests, options: Options, conditions: Conditions) -> None:
        self._requests = requests
        self._options = options
        self._conditions = conditions

    async def events(self, wanted: Wanted, since: str) -> AsyncGenerator[WatchEvent, None]:
        """See `Store.watch`. Raises ExpiredError, MissingKindError, InvalidError; other failures are waited out."""
        revision, name = since, resource(wanted.kind)
        backoff = Backoff(self._options.first_pause, self._options.most_pause)
        while True:
            began, given, sound, at_least = time.monotonic(), False, True, 0.0
            try:
                async with self._requests.stream(self._request(wanted, revision)) as lines:
                    self._conditions.worked(name)
                    async for line in lines:
                        event = parse_event(wanted, line)
                        revision, given = event.revision, True
                        yield event
            except MissingKindError:
                raise
            except UnavailableError as error:
                self._conditions.failed(name, str(error))
                sound, at_least = False, error.retry_after
            lasted = time.monotonic() - began > _SOUND
            if given or (sound and lasted):
                backoff.reset()
            if not sound or not lasted:
                await backoff.wait(at_least)

    def _request(self, wanted: Wanted, revision: str) -> Request:
        seconds = self._options.watch_seconds * random.uniform(1.0, 2.0)
        query = {
            **wanted.query,
            "watch": "1",
            "resourceVersion": revision,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(seconds)),
        }
        return Request("GET", target(wanted.path, query), asked("watch", wanted.kind))
