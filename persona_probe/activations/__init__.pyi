from .activations import Activations as Activations
from .captures import Captures as Captures
from .capturing import capture as capture
from .capturing import capture_together as capture_together
from .embeddings import embed as embed
from .moments import Moments as Moments
from .store.reading import ActivationStore as ActivationStore
from .store.writing import capture_to_store as capture_to_store
