"""The section `rate-limiter`."""

from typing import Annotated

from ciliate.plugin import Section
from msgspec import Meta


class RateLimiterSection(Section):
    """The limit of pods whose annotation says nothing else."""

    packets_per_second: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0  # 0: no limit
    burst: Annotated[float, Meta(gt=0)] = 1.0  # a pod that was silent may send so many seconds' packets at once
