"""The forms a lens can take: each is a parametrisation of one affine map a head, z -> logits."""
