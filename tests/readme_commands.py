"""What holds each command of README and docs/. A new one needs an entry here; one that they no longer have must go."""

from __future__ import annotations

from typing import NamedTuple


class Here(NamedTuple):
    """It is run by tests/test_readme.py in a clone with the data and the figures of the last commit.

    `shows` is what it prints among other things; `more` is added to it; `serves` is where it answers until it is ended.
    """

    shows: tuple[str, ...] = ()
    more: str = ""
    serves: str = ""


class Elsewhere(NamedTuple):
    """A test that runs the same thing: it is looked up, and `words` must stand in it or in the fixtures beside it."""

    name: str
    words: tuple[str, ...]


class Target(NamedTuple):
    """A make target: its recipe must run `command`."""

    command: str


class NotRun(NamedTuple):
    """No test can have what it needs."""

    why: str


RUN = Elsewhere(
    "tests/flows/test_server.py::test_a_run_without_a_prefect_server_brings_its_own", ('"run", "--no-promotion"',)
)
COMPARE = Elsewhere(
    "tests/flows/test_comparison.py::test_the_wanted_runs_are_made_once", ('run_compare(["ppo", "dpo"]',)
)
EVALUATE = "tests/components/interface/test_evaluate.py::"
DEPLOYMENT = "tests/flows/test_deployment.py::test_a_project_is_served_from_its_registration_to_the_end"
FLOWS = "tests/flows/test_deployed_flows.py::"
QUEUE = "tests/e2e/test_pipeline.py::test_a_queue_gives_runs_to_compare_under_one_parent_with_the_bytes_of_runs_alone"
APPROVED = "tests/flows/test_approved_runs.py::"

CHAT = "tests/components/interface/"
SERVED_BY_MLFLOW = Elsewhere(
    "tests/components/promotion/test_asking_the_champion.py::test_it_is_served_over_http_and_answers_as_chat_does",
    ("commands(PAGE", '"chat"'),
)

COMMANDS: dict[str, Here | Elsewhere | Target | NotRun] = {
    # to begin with
    "make run": Target("proximal run"),
    "make test": Target("pytest"),
    "make docs": Target("mkdocs build --strict"),
    ". .venv/bin/activate": Here(more=" && command -v proximal", shows=("/bin/proximal",)),
    "proximal --help": Here(shows=("lineage", "evaluate")),
    'eval "$(_PROXIMAL_COMPLETE=bash_source proximal)"': Here(more=" && complete -p proximal", shows=("proximal",)),
    "proximal doctor": Here(shows=("ok      git", "ok      data")),
    # runs
    "proximal run": RUN,
    "proximal run --no-promotion": RUN,
    "proximal run --set method=dpo": Elsewhere(
        "tests/flows/test_workspace.py::test_two_runs_at_once_do_not_disturb_each_other", ("overrides",)
    ),
    "proximal run --set policy_gradient.learning_rate=1e-4": Elsewhere(
        "tests/flows/test_workspace.py::test_two_runs_at_once_do_not_disturb_each_other", ("overrides",)
    ),
    "proximal seeds": Elsewhere("tests/flows/test_comparison.py", ("seeds",)),
    "proximal compare": COMPARE,
    "proximal compare --method ppo --method dpo --seed 1": COMPARE,
    "dvc repro": Elsewhere(
        "tests/e2e/test_pipeline.py::test_what_has_run_does_not_run_again", ('_dvc(workspace, "repro")',)
    ),
    "dvc repro sft": Elsewhere("tests/e2e/test_pipeline.py::test_gold_rises_beyond_its_interval", ('"repro")',)),
    "dvc exp run -S policy_gradient.learning_rate=1e-4": Elsewhere(
        "tests/components/tracking/test_pipeline_runs.py", ('("exp", "run", "-S"',)
    ),
    "dvc exp run --queue --name lr -S 'policy_gradient.learning_rate=1e-4,3e-4,1e-3'": Elsewhere(
        QUEUE, ('"--queue", "--name", "lr", "-S"',)
    ),
    "dvc queue start --jobs 1": Elsewhere(QUEUE, ('"queue", "start", "--jobs", "1"',)),
    "dvc queue status": Elsewhere(QUEUE, ('"queue", "status"',)),
    "dvc queue logs lr-1": Elsewhere(QUEUE, ('"queue", "logs", "lr-1"',)),
    "dvc exp run --run-all": Elsewhere("tests/components/tracking/test_pipeline_runs.py", ('"--run-all"',)),
    "dvc exp apply lr-2": Elsewhere(QUEUE, ('"exp", "apply", "lr-2"',)),
    "pip install -c constraints.txt -e '.[sweep]'": NotRun("a download; the tests have the same pins"),
    "python -m examples.optuna_sweep --study lr --trials 12": Elsewhere(
        "tests/flows/test_sweep.py::test_a_killed_study_goes_on_and_says_what_became_of_each_trial",
        ('"examples.optuna_sweep", "--study"',),
    ),
    "pip install -c constraints.txt -e '.[notebook]'": NotRun("a download; the tests have the same pins"),
    # what runs came to
    "proximal experiments": Here(shows=("workspace",)),
    "proximal stages": Here(shows=("alignment@2", "evaluation")),
    "proximal params ppo.gae_lambda": Here(shows=("0.95",)),
    "proximal params --schema": Here(shows=('"$defs"',)),
    "dvc metrics diff --targets artifacts/evaluation/summary.json": Here(shows=("difference.gold", "0.25")),
    "dvc plots diff": Here(shows=("index.html",)),
    "proximal ui": Here(more=" --port {port}", serves="http://127.0.0.1:{port}/health"),
    "proximal ui --prefect": Here(more=" --port {port}", serves="http://127.0.0.1:{port}/api/health"),
    "mlflow models serve -m models:/policy@champion --env-manager local": SERVED_BY_MLFLOW,
    "curl http://127.0.0.1:5000/invocations -H 'Content-Type: application/json' "
    """-d '{"inputs": ["My printer does not start."], "params": {"temperature": 0.0}}'""": SERVED_BY_MLFLOW,
    "proximal chat": Elsewhere(
        CHAT + "test_chat_command.py::test_at_a_terminal_it_answers_until_ctrl_c_ends_it", ("COMMAND",)
    ),
    "proximal chat policy@champion --compare artifacts/sft/policy": Elsewhere(
        CHAT + "test_chat_command.py::test_piped_prompts_are_answered_as_the_registered_model_predicts",
        ('"--compare"',),
    ),
    "proximal chat --page": Elsewhere(
        CHAT + "test_chat_page.py::test_two_policies_stream_side_by_side_what_they_say_at_the_terminal",
        ('"chat", "--page"',),
    ),
    "proximal serve policy@champion": Elsewhere(
        CHAT + "test_serve.py::test_openais_client_gets_the_policys_answers_whole_and_streamed", ('"serve"',)
    ),
    "proximal serve policy@champion --vllm .venv-vllm/bin/vllm": Elsewhere(
        "tests/components/vllm/test_real_vllm_serves.py::"
        "test_openais_client_gets_the_policys_answers_and_nothing_is_left_behind",
        ('"--vllm"',),
    ),
    "proximal lineage policy@champion": Elsewhere(
        "tests/components/interface/test_lineage.py::test_the_way_back_names_every_run_and_the_raw_rows",
        ("print_lineage",),
    ),
    "proximal evaluate artifacts/alignment/2/policy": Elsewhere(
        EVALUATE + "test_another_policy_is_another_and_its_figures_are_kept", ("evaluate(",)
    ),
    "proximal evaluate policy@champion": Elsewhere(
        EVALUATE + "test_a_registered_model_is_evaluated_by_its_name", ("@",)
    ),
    # worlds and proof
    "python -m components.worlds.helpdesk.generator --seed 7 --out data": Elsewhere(
        "tests/data/test_pinned.py::test_the_generators_output_has_the_pinned_hash", ('main(["--seed", "7", "--out"',)
    ),
    "python -m components.worlds.randomwalks oracle --seed 1000 --beta 0.1": Here(shows=("1000", "0.1")),
    "python -m tests.proof": Elsewhere(
        "tests/proof/test_randomwalks_proof_command.py::test_the_table_the_file_and_the_status", ("command.prove",)
    ),
    "python -m tests.benchmarks.validation": NotRun("a benchmark of 170,000 rows; its parts are tested"),
    "python -m tests.benchmarks.rounds --out FOLDER": NotRun(
        "half an hour; tests/flows/test_iterate.py has its command"
    ),
    "python -m tests.proof.options": NotRun("20 minutes; tests/proof holds the way that it measures"),
    # data and a model of one's own, and a team
    "make smollm2": Target("fetch_smollm2.py"),
    "make vllm": Target("make_vllm.sh"),
    "make deepspeed": Target("make_deepspeed.sh"),
    "make test-deepspeed": Target(
        "python -m pytest tests/components/training/test_zero_step.py tests/components/launch/test_zero_stages.py"
    ),
    "make test-vllm": Target("pytest -s tests/components/vllm"),
    "proximal data import FILE": Elsewhere(
        "tests/flows/test_data_import.py::test_files_come_in_as_rows_of_ours_and_are_pinned", ('"import"',)
    ),
    "proximal plan": Here(shows=("alignment", "updates")),
    "proximal export policy@champion --to FOLDER": Elsewhere(
        "tests/components/interface/test_export.py::test_the_command_writes_the_policy_that_is_named", ("--to",)
    ),
    "dvc remote add --default team s3://bucket/path": Here(more=" && dvc remote list", shows=("s3://bucket/path",)),
    "dvc push": Here(shows=("up to date",)),
    'pip install "dvc[s3]"': NotRun("a download that the tests need not"),
    "accelerate config": NotRun("it asks at a terminal"),
    # a server, a schedule, a worker
    "make serve-all": Target("proximal serve-all"),
    "make deploy": Target("proximal deploy"),
    "make drill": Target("pytest -n 2 tests/flows/test_kill_drill.py"),
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": Elsewhere(DEPLOYMENT, ("service.api",)),
    "proximal data add new.jsonl": Elsewhere(DEPLOYMENT, ('"data", "add"',)),
    "prefect deployment run rlhf/continue --param more_cycles=2": Elsewhere(
        FLOWS + "test_a_run_goes_on_from_the_last_cycle_for_more", ("more_cycles=2",)
    ),
    "prefect worker start --pool cpu": NotRun("serve-all starts it, in tests/flows/test_deployment.py"),
    "prefect gcl update gpu --limit 8": NotRun("tests/flows/test_deployment.py does the same by the API"),
    'proximal approve --reason "..."': Elsewhere(
        APPROVED + "test_a_run_at_a_terminal_ends_and_says_how_to_answer", ("approve",)
    ),
    'proximal reject --reason "..."': Elsewhere(
        APPROVED + "test_a_deployed_run_is_suspended_until_people_answer_and_does_nothing_else_after", ("reject",)
    ),
    'proximal rollback --reason "..."': Elsewhere("tests/components/promotion/test_champions.py", ("rollback",)),
    'proximal promote VERSION --reason "..."': Elsewhere("tests/components/promotion/test_champions.py", ("promote",)),
    "proximal label": Elsewhere(
        "tests/flows/test_label_page.py::test_people_judge_and_nothing_is_lost_or_doubled", ('"label"',)
    ),
    "proximal data add labels/labels.jsonl": Elsewhere(
        "tests/flows/test_data_add.py::test_what_people_have_labelled_comes_in_once", ('"labels/labels.jsonl"',)
    ),
    "proximal iterate --rounds 3 --comparisons 300": Elsewhere(
        "tests/flows/test_iterate.py::test_a_killed_command_goes_on_to_the_same_bytes", ('"iterate"',)
    ),
    "proximal data export labels/labels.jsonl pairs.json --as label-studio": Elsewhere(
        "tests/flows/test_data_add.py::test_what_people_have_labelled_comes_in_once", ('"export"', '"label-studio"')
    ),
    "proximal data forget alma": Elsewhere(
        "tests/flows/test_data_forget.py::test_rows_go_into_no_later_version_and_every_model_that_saw_them_is_named",
        ("forget",),
    ),
    "proximal sync": Elsewhere(
        "tests/components/tracking/test_outages.py::"
        "test_what_a_server_that_stays_away_was_not_told_is_delivered_later_once",
        ('"flows.cli", "sync"',),
    ),
}
