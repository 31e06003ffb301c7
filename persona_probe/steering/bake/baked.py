"""Weights with an intervention inside, as they lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Baked:
    """What `bake` wrote, after it was read back and compared with the hooked model.

    Attributes:
        folder: the model (or adapter), its tokenizer and chat template, ``README.md`` and ``persona_probe.json``.
        form: ``"weights"`` or ``"lora"``.
        architecture: the class that reads it (of an adapter: the base's).
        max_logit_difference: largest difference of a logit from the hooked model's.
        tokens: over how many positions.
        same_text: whether greedy answers were the same (in float32 they are; half precision may break ties otherwise).
    """

    folder: Path
    form: str
    architecture: str
    max_logit_difference: float
    tokens: int
    same_text: bool

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the folder to the Hugging Face Hub.

        Everything in ``README.md`` and ``persona_probe.json`` is published with it: look through them first.

        Args:
            repo_id: ``owner/name``; made if there is none.
            private: whether a new repository is private.
            token: default the one that ``hf auth login`` stored.

        Returns:
            Where it is now.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo_id, folder_path=self.folder, commit_message="Written by persona-probe")
        return str(done)
