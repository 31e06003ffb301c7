"""What the package does on a real chat model (SmolLM2-135M-Instruct)."""
