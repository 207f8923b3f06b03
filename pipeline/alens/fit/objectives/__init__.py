"""The losses a lens can be fitted by. Each takes whitened z, an affine map and a teacher."""
