from .gguf import read_gguf as read_gguf
from .gguf import write_gguf as write_gguf
from .ray import RayCluster as RayCluster
