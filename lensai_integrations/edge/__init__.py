"""LensAI's devices: their files read as profiles, profiles and thresholds written for them and sent to a server."""

from lensai_integrations.edge.config import write_config
from lensai_integrations.edge.publishing import deliver, publish
from lensai_integrations.edge.reading import read_stats
from lensai_integrations.edge.writing import write_stats

__all__ = ["deliver", "publish", "read_stats", "write_config", "write_stats"]
