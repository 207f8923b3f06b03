"""What is known about heads, from papers or from ablation: their families, and what they do to the answers of prompts."""
