"""Ouvre le cours dans JupyterLab : en français, sur la première page, carnets approuvés.

Les options données sont transmises à JupyterLab : `python scripts/cours.py --no-browser --port=9000`.
"""

import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHAPTERS = sorted(source.parent.name for source in (ROOT / "chapters").glob("*/cours.md"))
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "IPYTHONDIR": "ipython",
    "MPLCONFIGDIR": "matplotlib",
}
SETTINGS = {
    "@jupyterlab/translation-extension:plugin": {"locale": "fr_FR"},
    # Aucune de ces deux fonctions ne marche hors ligne, et la première ouvre une question en anglais.
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
    # Sinon un curseur dessine dans un second fil, pendant qu'une cellule dessine dans le premier.
    "@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"},
}
# Voilà, qui sert aux démonstrations, ajouterait à chaque carnet un bouton en anglais.
DISABLED = ["@voila-dashboards/jupyterlab-preview"]


def confine() -> None:
    """Garde dans le dossier `.jupyter/` du cours ce que Jupyter, IPython et Matplotlib écrivent d'eux-mêmes.

    Vaut pour ce processus et ceux qu'il lance ; à appeler avant d'importer Jupyter. Les réglages
    personnels de l'étudiant ne peuvent ni changer le cours, ni être changés par lui.
    """
    for variable, name in FOLDERS.items():
        folder = ROOT / ".jupyter" / name
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder)
    os.environ.pop("JUPYTER_RUNTIME_DIR", None)  # sans quoi elle l'emporterait sur JUPYTER_DATA_DIR


def write_settings() -> None:
    """Écrit les réglages par défaut de JupyterLab ; ceux que l'étudiant choisit ensuite l'emportent."""
    folder = pathlib.Path(os.environ["JUPYTER_CONFIG_DIR"]) / "labconfig"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "default_setting_overrides.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    disabled = {"disabledExtensions": dict.fromkeys(DISABLED, True)}
    (folder / "page_config.json").write_text(json.dumps(disabled), encoding="utf-8")


def trust() -> None:
    """Approuve les carnets du cours, et eux seuls, pour que leurs sorties interactives s'affichent."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for chapter in CHAPTERS:
        for folder in ("notebooks", "notebooks/corriges"):
            notebook = ROOT / folder / f"{chapter}.ipynb"
            if notebook.exists():
                notary.sign(nbformat.read(notebook, as_version=4))


def options() -> list[str]:
    """Options de JupyterLab pour cette machine."""
    chosen = [
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/notebooks/{CHAPTERS[0]}.ipynb",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.answer_yes=True",  # Ctrl-C arrête, sans question en anglais
        "--ServerApp.log_level=ERROR",
        "--LabApp.log_level=ERROR",
        "--KernelManager.transport_encryption=auto",  # sinon chaque noyau avertit qu'il n'est pas chiffré
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # conteneurs
        chosen.append("--allow-root")
    screens = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not screens and sys.platform not in ("darwin", "win32"):
        chosen.append("--no-browser")
    return chosen


def main() -> None:
    """Prépare les réglages, dit l'adresse et sert le cours jusqu'à Ctrl-C."""
    confine()
    write_settings()
    trust()
    from jupyterlab.labapp import LabApp

    server = LabApp.initialize_server(argv=[*options(), *sys.argv[1:]])
    print(f"Le cours est ouvert. S'il n'apparaît pas dans le navigateur, copiez-y cette adresse :\n\n"
          f"    {server.local_url}\n\nPour l'arrêter : Ctrl-C dans cette fenêtre.", flush=True)
    server.identity_provider.token_generated = False  # sinon Jupyter redit l'adresse, en anglais
    server.start()


if __name__ == "__main__":
    main()
