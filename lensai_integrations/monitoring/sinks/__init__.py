"""Where a monitor's windows, notices and status go: files, web hooks, functions. MLflow's is in `mlflow/`."""

from lensai_integrations.monitoring.sinks.base import FunctionSink, Sink
from lensai_integrations.monitoring.sinks.json_lines import JSONLinesSink
from lensai_integrations.monitoring.sinks.prometheus import PrometheusSink
from lensai_integrations.monitoring.sinks.webhook import WebhookSink

__all__ = ["FunctionSink", "JSONLinesSink", "PrometheusSink", "Sink", "WebhookSink"]
