"""What people fit lenses for, beyond one prompt: studies of heads. The model runs here."""
