"""Online DPO: the policy's own responses, told apart by the reward model, become the pairs that it learns from."""
