"""The pure maths of preference training: tensors in, tensors out.

Nothing in here reads a file, a clock or a config, logs, moves a tensor to another device, edits an argument
or draws a random number. Every function checks the shapes of its arguments first, so that nothing is
broadcast by accident.

Notation: B sequences, T response tokens, V vocabulary, M reward models, N examples. Index t of a (B, T)
tensor is the t-th response token; a logprob is that of token t given the tokens before it, a value is that of
the state before it. A mask is bool and True selects. Losses are minimised. All logarithms are natural (nats).

`Holds` in a docstring lists identities; tests/core has a test of the same name for each.
"""
