"""Models, how they are pretrained and finetuned, how they answer, and the store that keeps what was finished."""
