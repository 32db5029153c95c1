"""Find, apply and measure editing directions in the h-space of diffusion models.

After Haas et al., FG 2024 (arXiv 2303.11073). `__init__.pyi` lists the public names, for editors and type checkers and
for this module alike; each is loaded on first use, so that `import hspace` is quick.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
