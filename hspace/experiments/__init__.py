"""The paper's experiments, one short procedure per figure or table, composed from the modules below."""
