from .drift.compare import compare as compare
from .drift.fleet import FleetReport as FleetReport
from .drift.fleet import compare_many as compare_many
from .drift.learning import calibrate as calibrate
from .drift.result import DriftReport as DriftReport
from .edge.lensai import Metrics as Metrics
from .edge.lensai import Sketches as Sketches
from .edge.lensai import calculate_percentiles as calculate_percentiles
from .edge.lensai import get_histogram_sketch as get_histogram_sketch
from .errors import LensAIError as LensAIError
from .measures.custom import measure as measure
from .measures.inputs import ImageInputs as ImageInputs
from .monitoring.monitor import DriftMonitor as DriftMonitor
from .profiles.profile import Baseline as Baseline
from .profiles.profile import Profile as Profile
from .profiling.datasets import profile_dataset as profile_dataset
from .profiling.profiler import Profiler as Profiler

__version__: str
