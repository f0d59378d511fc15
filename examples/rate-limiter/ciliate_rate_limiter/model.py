"""What others may read of this plugin: its table and its map."""

import numpy as np
from ciliate.maps.spec import MapKind, MapSpec
from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class RateLimit(Row, frozen=True):
    """The limit of a pod. Key: endpoint."""

    endpoint: int
    namespace: str
    pod: str
    packets_per_second: int


RATE_LIMITS = TableSpec("rate_limits", RateLimit, ("endpoint",), Durability.SECOND, "Pods with a limit.")
BUCKET = np.dtype([(name, "<u8") for name in ("interval", "depth", "full_at", "passed", "dropped")])  # as in C
RATE_BUCKETS = MapSpec("rate_buckets", MapKind.HASH, np.dtype("<u4"), BUCKET, 4096, "Endpoint id to bucket.")
