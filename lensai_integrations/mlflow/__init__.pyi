from .load import load_baseline as load_baseline
from .log import log_baseline as log_baseline
from .log import push as push
from .monitoring import MLflowSink as MLflowSink
from .monitoring import SensorRuns as SensorRuns
from .wrapping import monitored as monitored
