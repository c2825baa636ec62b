"""Proof by known optimum: the real stages run on the randomwalks world, and every policy is held against the oracle."""
