"""Proximal policy optimisation: cycles of rollouts (phase 1) and clipped updates (phase 2)."""
