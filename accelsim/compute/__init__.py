"""The integers a machine computes, by the kernels, and what happened joined with what was computed."""
