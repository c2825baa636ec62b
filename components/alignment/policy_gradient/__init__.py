"""Proximal policy optimisation, with or without a value model: rollouts (phase 1) and clipped updates (phase 2)."""
