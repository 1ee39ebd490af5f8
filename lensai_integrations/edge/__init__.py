"""LensAI's devices: their files read as profiles, profiles and thresholds written for them and sent to a server.

In: folders and archives of devices, in which nothing is believed. Out: profiles; files and configurations in the layout
that the C++ profiler reads; uploads, each delivered once. Knows no framework and no tracking server.
"""

from lensai_integrations.edge.config import write_config
from lensai_integrations.edge.publishing import deliver, publish
from lensai_integrations.edge.reading import read_stats
from lensai_integrations.edge.writing import write_stats

__all__ = ["deliver", "publish", "read_stats", "write_config", "write_stats"]
