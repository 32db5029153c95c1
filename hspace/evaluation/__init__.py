"""Where model, edit and scorer meet: effects, calibration, stability, the cost of leaving the manifold."""
