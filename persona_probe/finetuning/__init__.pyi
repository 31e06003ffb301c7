from .lora import LoraSettings as LoraSettings
from .lora import finetune as finetune
from .realignment_curve import RealignmentCurve as RealignmentCurve
from .snapshots import snapshot_paths as snapshot_paths
