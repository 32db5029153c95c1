"""Where model, edit and scorer meet: effects, calibration, the cost of leaving the manifold."""
