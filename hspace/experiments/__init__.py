"""The paper's figures and tables, one procedure each."""
