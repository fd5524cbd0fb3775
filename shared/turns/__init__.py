"""Running one chat turn: lease, prompt, stages, driver."""
