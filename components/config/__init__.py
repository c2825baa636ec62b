"""params.yaml as types. No value has a default here: params.yaml is the only place a value lives.

Every section is one class, frozen, and refuses unknown keys; rules between fields stand beside them, a family of
sections in a file. Importing this package imports no torch.
"""

from components.config.base import (
    METHODS,
    POLICY_GRADIENT_METHODS,
    Count,
    Fraction,
    Method,
    NotNegative,
    Positive,
    Section,
    contradiction,
)
from components.config.comparisons import BestOfN, ComparisonMethod, Dpo, PreferenceLoss, QLearning
from components.config.compute import Compute, CpuThreads
from components.config.data import Data, DataValidation
from components.config.generation import Generation, Own, Vllm, VllmAtUrl, VllmStarted
from components.config.measuring import CycleStart, Evaluation, Measurement, Promotion, Selection
from components.config.models import LanguageModel, ScratchModel
from components.config.online import OnlineDpo
from components.config.orchestration import Orchestration
from components.config.params import MethodSettings, Params, Shared
from components.config.policy_gradient import (
    CriticFree,
    Grpo,
    LengthPenalty,
    PolicyGradient,
    PolicyGradientMethod,
    Ppo,
    Rloo,
)
from components.config.reading import load_params, parse_params
from components.config.training import Optimisation, RewardModel, Sft

__all__ = [
    "BestOfN",
    "ComparisonMethod",
    "Compute",
    "Count",
    "CpuThreads",
    "CriticFree",
    "CycleStart",
    "Data",
    "DataValidation",
    "Dpo",
    "Evaluation",
    "Fraction",
    "Generation",
    "Grpo",
    "LanguageModel",
    "LengthPenalty",
    "METHODS",
    "Measurement",
    "Method",
    "MethodSettings",
    "NotNegative",
    "OnlineDpo",
    "Optimisation",
    "POLICY_GRADIENT_METHODS",
    "Params",
    "PolicyGradient",
    "PolicyGradientMethod",
    "Positive",
    "Orchestration",
    "Own",
    "Ppo",
    "PreferenceLoss",
    "Promotion",
    "QLearning",
    "RewardModel",
    "Rloo",
    "ScratchModel",
    "Shared",
    "Section",
    "Selection",
    "Sft",
    "Vllm",
    "VllmAtUrl",
    "VllmStarted",
    "contradiction",
    "load_params",
    "parse_params",
]
