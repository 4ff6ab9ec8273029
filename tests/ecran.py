"""Ce qu'une cellule affiche, vu sans noyau : les sorties publiées et leurs métadonnées."""

import contextlib

from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


@contextlib.contextmanager
def published():
    """Sorties publiées dans le contexte : dictionnaires de clés data, metadata, transient, update."""
    settings = Config()
    settings.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=settings)
    shell.display_pub = CapturingDisplayPublisher()
    try:
        yield shell.display_pub.outputs
    finally:
        shell.restore_sys_module_state()
        InteractiveShell.clear_instance()
