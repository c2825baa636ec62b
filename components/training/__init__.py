"""What training of every kind shares: the accelerator, the step, the fit."""
