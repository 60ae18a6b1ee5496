"""The two halves of a backward pass: the inputs' gradients first, the weights' gradients later."""
