"""A policy behind vLLM's own OpenAI server: `proximal serve --vllm`."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from components.engines.vllm_server import spawn
from components.errors import ConfigError, EnvironmentFault
from components.models.text_format import TextFormat

# Options of `vllm serve` that are said here already.
_OURS = {"--model", "--served-model-name", "--host", "--port", "--uds", "--generation-config", "--tokenizer"}
_OURS |= {"--override-generation-config", "--default-chat-template-kwargs", "--chat-template"}


@dataclass(frozen=True)
class Vllm:
    """A vLLM that is installed here.

    Args:
        program: of the command line, such as .venv-vllm/bin/vllm.
        arguments: further options of its `serve`.
    """

    program: str
    arguments: tuple[str, ...] = ()

    def require(self) -> None:
        """Raises: ConfigError: there is no such program, or the options are not the user's to set."""
        if shutil.which(self.program) is None:
            raise ConfigError(
                "vLLM is not installed there",
                where="--vllm",
                expected="a program, such as .venv-vllm/bin/vllm, or one that is found on PATH",
                found=self.program,
                do="name it, or make one for CPUs with `make vllm`",
            )
        if found := sorted(_OURS & {argument.partition("=")[0] for argument in self.arguments}):
            raise ConfigError(
                "these options are set already",
                where="--vllm-arguments",
                expected="other options of `vllm serve`",
                found=", ".join(found),
            )

    def run(self, folder: Path, name: str, address: tuple[str, int], temperature: float, text: TextFormat) -> None:
        """Serve an exported policy until a signal; vLLM is ended before this returns or raises.

        Args:
            name: of the model in requests.
            temperature: of answers whose request names none.
            text: whose options reach the chat template.
        Raises:
            EnvironmentFault: vLLM ended by itself.
        """
        host, port = address
        dtype = json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"]
        options = {
            "--served-model-name": name,
            "--host": host,
            "--port": str(port),
            "--dtype": dtype,  # it would round float32; an argument may say that it shall
            # It would take 1 where the folder's generation_config says greedy.
            "--override-generation-config": json.dumps({"temperature": temperature}),
            "--default-chat-template-kwargs": json.dumps(dict(text.chat_template_options)),
        }
        said = [word for option in options.items() for word in option]
        process = spawn([self.program, "serve", str(folder), *said, *self.arguments], {}, sys.stderr)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            return
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
        raise EnvironmentFault(
            "vLLM does not serve any more",
            where=f"--vllm {self.program}",
            expected="a server that goes on until it is interrupted",
            found=f"it ended with status {status}",
            do="read what it said above; --vllm-arguments takes further options of `vllm serve`",
        )
