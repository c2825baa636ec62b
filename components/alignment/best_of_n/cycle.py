"""One cycle of best of n: the SFT policy chooses among more responses than in the last one."""

from __future__ import annotations

import logging

from accelerate import Accelerator

from components import paths
from components.alignment.method import Cycle, rows_of_iteration, save_iteration
from components.artifacts import atomic_folder, write_json
from components.config import BestOfN as Settings
from components.config import Params
from components.measuring.measure import Yardsticks, progress
from components.models.best_of_n import BestOfN
from components.models.loading import save_best_of_n

logger = logging.getLogger("proximal")


def responses_of_cycle(settings: Settings, number: int) -> int:
    """n of cycle `number`, counted from 1."""
    n: int = settings.first_n * settings.growth ** (number - 1)
    return n


def run_cycle(accelerator: Accelerator, params: Params, cycle: Cycle, yardsticks: Yardsticks) -> None:
    """Store the SFT policy with the reward model that chooses, and measure them; see components.alignment.method.

    A cycle has one iteration and takes nothing from the last cycle: together they draw reward and gold along the KL.
    Nothing is trained and nothing sampled for training: the cost comes with every response that is asked for.
    """
    settings, work = params.best_of_n, cycle.work
    if accelerator.is_main_process and not (work / "state").exists():
        n = responses_of_cycle(settings, cycle.number)
        policy = BestOfN(yardsticks.reference, yardsticks.reward_model, n)
        watched = rows_of_iteration(cycle.prompts, settings.progress_prompts, 0, params.seed, "best_of_n/progress")
        row = {
            "cycle": cycle.number,
            "iteration": cycle.number,
            "n": n,
            **progress(policy, yardsticks, params, watched, "best_of_n/progress"),
            "sampled_tokens": 0,
            "trained_tokens": 0,
        }
        logger.info(
            "best_of_n: cycle %d, the best of %d, reward %+.3f, kl at most %.2f nats",
            *(cycle.number, n, row["reward"], row["kl"]),
        )
        cycle.report(row)
        with atomic_folder(work) as folder:
            save_best_of_n(paths.SFT / "policy", paths.REWARD_MODEL / "model", n, folder / "policy")
            save_iteration(folder, cycle.number)
            write_json(folder / "curve.json", [row])
    accelerator.wait_for_everyone()
