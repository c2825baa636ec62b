"""Of which base an adapter is, and where that lies: a folder of the project's, or a revision of the hub's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from components.artifacts import read_json, reading, write_json
from components.digests import digest, digest_of_values
from components.errors import ArtifactError

# peft's names, and ours beside them
CONFIG_FILE, WEIGHTS_FILE, ORIGIN_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"


class Origin(NamedTuple):
    """The base of an adapter.

    Args:
        checkpoint: as params named it: a folder, or a name on the hub.
        commit: of what came from the hub; None for a folder.
        weights: see `weights_digest`.
    """

    checkpoint: str
    commit: str | None
    weights: str

    @classmethod
    def of(cls, checkpoint: str, model: Any) -> tuple[Origin, Path]:
        """Of a checkpoint that was just loaded, with the folder where its files lie."""
        commit = None if Path(checkpoint).is_dir() else getattr(model.config, "_commit_hash", None)
        folder = Path(checkpoint) if commit is None else _snapshot(checkpoint, commit)
        return cls(checkpoint, commit, weights_digest(folder)), folder

    def save(self, folder: Path) -> None:
        """Write base.json."""
        write_json(folder / ORIGIN_FILE, self._asdict())

    @classmethod
    def load(cls, folder: Path) -> Origin:
        """What `save` wrote.

        Raises:
            ArtifactError: absent or corrupt.
        """
        path = folder / ORIGIN_FILE
        with reading("adapter", path, "checkpoint, commit and weights of its base"):
            content = read_json(path)
            if not isinstance(content["checkpoint"], str) or not isinstance(content["weights"], str):
                raise TypeError(f"{content!r}")
            return cls(content["checkpoint"], content["commit"], content["weights"])

    def folder(self, adapter: Path) -> Path:
        """Where the base's files lie.

        A relative folder is looked for from every folder above the adapter's on, the project's root among them, and
        then from the present one on.

        Raises:
            ArtifactError: nowhere.
        """
        if self.commit is not None:
            try:
                return _snapshot(self.checkpoint, self.commit)
            except OSError as fault:
                raise self._missing(adapter, " ".join(str(fault).split())[:300]) from fault
        for above in (*adapter.absolute().parents, Path()):
            if (above / self.checkpoint / "config.json").is_file():
                return above / self.checkpoint
        raise self._missing(adapter, "no such folder with a config.json, neither here nor above the adapter's folder")

    def require(self, weights: str, adapter: Path, base: Path) -> None:
        """Refuse another base: with it the adapter would answer, and badly. Raises: ArtifactError."""
        if weights != self.weights:
            raise ArtifactError(
                "an adapter for another base",
                where=f"{adapter}, on {base}",
                expected=f"the weights that it was trained on, digest {self.weights}",
                found=f"digest {weights}",
                do=f"bring back the files that {self.checkpoint} had, or run `dvc repro`, which trains on those of now",
            )

    def _missing(self, adapter: Path, found: str) -> ArtifactError:
        return ArtifactError(
            "the base of an adapter is missing",
            where=str(adapter),
            expected=f"the model {self.checkpoint}" + (f" at commit {self.commit}" if self.commit else ""),
            found=found,
            do="bring the base there, or use a merged policy (`proximal export`), which needs none",
        )


def is_adapter(folder: Path) -> bool:
    """Whether a stored model is an adapter, or what is left of one."""
    return (folder / CONFIG_FILE).exists() or (folder / WEIGHTS_FILE).exists()


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a Hugging Face model's weights, in order."""
    return sorted(folder.glob("model*.safetensors"))


def weights_digest(folder: Path) -> str:
    """A digest of a model's weights, whatever folder they lie in."""
    return digest_of_values([[path.name, digest(path)] for path in weight_files(folder)])


def _snapshot(name: str, commit: str) -> Path:
    """Where the hub's files of a commit lie on this machine; fetched if they do not yet. Raises: OSError."""
    from transformers.utils.hub import cached_file

    found: Any = cached_file(name, "config.json", revision=commit)
    return Path(found).parent
