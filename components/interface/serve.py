"""A policy behind OpenAI's HTTP interface, by transformers' own server or by vLLM's: `proximal serve`."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import click

from components.errors import ArtifactError, ConfigError
from components.interface.export import export, require_plain
from components.interface.policies import policy_folder
from components.interface.serve_vllm import Vllm
from components.models.loading import load_codec
from components.models.prompt_template import PromptTemplate
from components.models.text import Codec
from components.models.text_format import TextFormat

HOST = "127.0.0.1"
# One with what a tokenizer may treat of its own: spaces at an end and in a row, a line's end, another script.
_PROBES = ("Is this the same model?", "Two  spaces, é,\nand a line.")


def serve(policy: str, port: int, temperature: float, vllm: Vllm | None = None) -> None:
    """Answer on this machine alone until it is interrupted or ended; nothing is left behind then.

    Args:
        policy: as `policy_folder` takes it; a policy that is more than a language model is refused.
        temperature: of answers whose request names none; 0 takes the likeliest token every time.
        vllm: whose server it is; transformers' own without one.

    Raises:
        ConfigError: the server is not installed, or the port is taken.
        EnvironmentFault: vLLM ended by itself.
        ArtifactError: there is no such policy, it is damaged, or it has no plain form.
    """
    if vllm is None:
        _require_server()
    else:
        vllm.require()
    _require_free(port)
    signal.signal(signal.SIGTERM, _leave)  # in order, so that the folder below goes
    name = served_name(policy)
    with tempfile.TemporaryDirectory(prefix="proximal-serve-") as scratch:
        with policy_folder(policy) as folder:
            require_plain(folder)
            exported = Path(scratch, name.partition("@")[0])
            text_format = write_served(folder, exported, temperature)
        click.echo(f"{name}: http://{HOST}:{port}/v1 (Ctrl-C ends it)", err=True)
        if vllm is not None:
            vllm.run(exported, name, (HOST, port), temperature, text_format)
            return
        with contextlib.chdir(scratch):  # the server calls a model by the path of its folder
            _run_server(name, port, text_format)


def served_name(policy: str) -> str:
    """What a request calls the model: NAME@ALIAS or NAME@NUMBER, or the last part of a folder's path."""
    if "@" not in policy and not policy.startswith("models:/") or Path(policy).exists():
        return Path(policy).resolve().name.replace("@", "-")
    name = policy.removeprefix("models:/")
    return name if "@" in name else "@".join(name.rsplit("/", 1))


def write_served(source: Path, to: Path, temperature: float) -> TextFormat:
    """Export a policy to a new folder, with a chat template that dresses messages as the policy's training did.

    Returns:
        The policy's text format.

    Raises:
        ArtifactError: see `export`; or no chat template gives the tokens of training.
    """
    from transformers import AutoTokenizer, GenerationConfig

    export(source, to, None)
    codec = load_codec(source)
    auto: Any = AutoTokenizer  # untyped in transformers
    tokenizer = auto.from_pretrained(to, local_files_only=True)
    tokenizer.chat_template = template_of(codec)
    tokenizer.save_pretrained(to)
    _require_same_tokens(tokenizer, codec, source)
    # The policy's own distribution, as it was trained and measured: transformers would take the 50 likeliest alone.
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    ends = {"eos_token_id": list(codec.stop_ids), "pad_token_id": codec.pad_id}
    made: Any = GenerationConfig
    made(**sampling, **ends, max_new_tokens=codec.format.max_response_tokens).save_pretrained(to)
    return codec.format


def template_of(codec: Codec) -> str:
    """A chat template, in Jinja, that gives what the policy read in training.

    One made of a text around {prompt} takes a single message of the user's and refuses all else.
    """
    text = codec.format.prompt_template
    if text is None:
        given: str = codec.tokenizer.chat_template
        if codec.format.system_prompt is None:
            return given
        turn = f"{{'role': 'system', 'content': {_quoted(codec.format.system_prompt)}}}"
        added = f"{{%- set messages = [{turn}] + messages -%}}"
        return f"{{%- if messages[0]['role'] != 'system' -%}}{added}{{%- endif -%}}{given}"
    before, after = text.split("{prompt}")
    template = codec.template
    assert isinstance(template, PromptTemplate)
    [dressed] = template.encode([""])
    bare = codec.tokenizer(before + after, add_special_tokens=False)["input_ids"]
    own = dressed[: len(dressed) - len(bare)]  # what the tokenizer puts before every text
    begin = "".join(codec.tokenizer.convert_ids_to_tokens(own))
    refusal = _quoted("messages: this policy has no chat template and takes one message, of the role user; asked: ")
    asked = "(messages | map(attribute='role') | join(', '))"
    return (
        "{%- if messages | length != 1 or messages[0]['role'] != 'user' -%}"
        f"{{{{ raise_exception({refusal} + {asked}) }}}}{{%- endif -%}}"
        f"{{{{ {_quoted(begin + before)} + messages[0]['content'] + {_quoted(after)} }}}}"
    )


def _quoted(text: str) -> str:
    """A string of Jinja's, which reads JSON's escapes."""
    return json.dumps(text)


def _require_same_tokens(tokenizer: Any, codec: Codec, source: Path) -> None:
    options = dict(codec.format.chat_template_options)
    for probe in _PROBES:
        asked = [{"role": "user", "content": probe}]
        found = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False, **options)
        [expected] = codec.template.encode([probe])
        if list(found) != expected:
            raise ArtifactError(
                "no chat template gives this policy what it read in training",
                where=f"{source}: the tokens of {probe!r}",
                expected=str(expected),
                found=str(list(found)),
                do="talk to it with `proximal chat`, or serve a registered one with `mlflow models serve`",
            )


def _require_server() -> None:
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise ConfigError(
            "transformers' server is not whole here",
            where="proximal serve",
            expected="the package openai, whose types it answers in",
            found="none",
            do='pip install -c constraints.txt -e ".[serve]"',
        )


def _require_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            listener.bind((HOST, port))
        except OSError as fault:
            if fault.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ConfigError(
                "the port cannot be had",
                where=f"--port {port}",
                expected=f"a port of {HOST} that is free",
                found=str(fault.strerror),
                do="name another one",
            ) from fault


def _run_server(name: str, port: int, text_format: TextFormat) -> None:
    """Until a signal; the server ends what it began, then the signal's own handler is called.

    It is put together as `transformers serve` does, but for a refusal of the chat template, which is told as such.
    """
    import uvicorn
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError
    from transformers.cli.serving import chat_completion, completion, model_manager, response, systemone, transcription
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.utils import GenerationState
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    options = dict(text_format.chat_template_options)
    models: Any = model_manager.ModelManager(force_model=name)
    state: Any = GenerationState()
    app: Any = build_server(
        models,
        chat_completion.ChatCompletionHandler(models, state, chat_template_kwargs=options),
        completion_handler=completion.CompletionHandler(models, state),
        response_handler=response.ResponseHandler(models, state, chat_template_kwargs=options),
        transcription_handler=transcription.TranscriptionHandler(models, state),
        systemone_handler=systemone.SystemOneHandler(models, state, chat_template_kwargs=options),
        generation_state=state,
    )

    @app.exception_handler(TemplateError)  # type: ignore[untyped-decorator]
    async def refuse(_request: Any, fault: TemplateError) -> JSONResponse:
        return JSONResponse({"detail": str(fault)}, status_code=400)

    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host=HOST, port=port, log_level="warning")


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
