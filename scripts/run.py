"""The installed `hspace` as a script: python scripts/run.py method=pca edit.strengths=[-3,0,3]."""

import sys

from hspace.cli import main

if __name__ == "__main__":
    sys.exit(main())
