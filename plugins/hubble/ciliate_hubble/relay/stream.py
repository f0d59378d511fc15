"""One node's flows within one request: where it stands, so that a stream which broke can be taken up again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ciliate_hubble.api.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from ciliate_hubble.relay.wire import message_time

MASK_TIME = "time"


@dataclass
class Progress:
    """What has come of one node."""

    time: int = 0  # of the last message, in ns; 0: none has come
    count: int = 0  # of messages of exactly that time
    repeated: int = 0  # of these, how many a stream that takes up may repeat

    def note(self, time: int) -> bool:
        """A message has come; False if it came before, on the stream that this one takes up."""
        if time and time == self.time and self.repeated:
            self.repeated -= 1
            return False
        if time > self.time:
            self.time, self.count, self.repeated = time, 0, 0
        self.count += time == self.time
        return True

    def take_up(self) -> None:
        """A new stream begins at the time of the last message."""
        self.repeated = self.count


class Request:
    """A reader's request, as nodes get it."""

    def __init__(self, request: GetFlowsRequest) -> None:
        self._request = GetFlowsRequest()
        self._request.CopyFrom(request)
        paths = list(request.field_mask.paths)
        self.hides_time = bool(paths) and MASK_TIME not in paths  # it is needed here, and taken out again
        if self.hides_time:
            self._request.field_mask.paths.append(MASK_TIME)
        self._first = self._request.SerializeToString()
        self._begun = time.time_ns()

    @property
    def follows(self) -> bool:
        """Whether it has no end."""
        return self._request.follow

    @property
    def ends(self) -> bool:
        """Whether it ends at a time, even if it follows."""
        return self._request.HasField("until")

    def first(self) -> bytes:
        """For a node that is there when the request comes."""
        return self._first

    def later(self, progress: Progress) -> bytes:
        """For a node that comes later or comes back: from where it stood, or from when the reader asked."""
        request = GetFlowsRequest()
        request.CopyFrom(self._request)
        request.number, request.first = 0, False
        if progress.time:
            request.since.FromNanoseconds(progress.time)
        elif not request.HasField("since"):
            request.since.FromNanoseconds(self._begun)
        progress.take_up()
        return request.SerializeToString()

    def time_of(self, message: bytes) -> int:
        """When a message is from, in ns. Raises WireError."""
        return message_time(message)

    def shown(self, message: bytes) -> bytes:
        """A message as the reader asked for it."""
        if not self.hides_time:
            return message
        response = GetFlowsResponse.FromString(message)
        response.ClearField("time")
        if response.HasField("flow"):
            response.flow.ClearField("time")
        return response.SerializeToString()
