"""Projette les figures interactives d'un chapitre, plein écran et sans code : `python scripts/demo.py 07`.

Sans chapitre, une page d'accueil mène à tous. De chaque chapitre naît un carnet, `.jupyter/demo/NN_slug.ipynb`,
que Voilà exécute et montre : les figures (`explore`, `frames`) et les seules instructions dont elles ont besoin.
Rien n'est entraîné. Une figure qui dépend d'un entraînement, ou d'un calcul que règle le budget, garde les
positions enregistrées dans le carnet livré.

    python scripts/demo.py [07] [--no-browser] [--port 9000]
"""

import argparse
import ast
import asyncio
import dis
import functools
import os
import re
import sys
import types
import webbrowser
from dataclasses import dataclass

import cours
import nbformat

import notebooks

FOLDER = cours.ROOT / ".jupyter" / "demo"
TEMPLATES = cours.ROOT / "scripts" / "templates"
FIGURES = {"explore", "frames"}
COSTLY = {"fit", "backward", "budget", "budget_steps"}  # entraîner, ou calculer d'autant plus que le budget le permet
HARMLESS = {"print", "show", "check", "explore", "frames"}  # ce qu'on leur donne en ressort intact
INLINE = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}  # Python 3.11 en fait des fonctions
DPI = 140  # un écran large agrandit les figures
# Ce qui anime les curseurs, avec ipywidgets 8 ou 7 ; le reste de JupyterLab ne servirait à rien.
EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8",
              "@voila-dashboards/widgets-manager7"]
PREAMBLE = """import functools
import sys
sys.path.insert(0, {root!r})
from utils import config, plots, widgets
plots.png = functools.partial(plots.png, dpi={dpi})
explore = widgets.explore
widgets.explore = lambda f, keys, **options: explore(f, keys=[*keys[:2], keys[-1]], **options)  # de quoi cadrer
config.seed_everything(0)"""


# --- De quoi une instruction a besoin -------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """Instruction d'un chapitre, et ce qu'elle fait des noms du carnet."""

    tree: ast.stmt
    cell: str  # identifiant de sa cellule
    title: str  # celui de la section
    now: set[str]  # noms qu'elle lit en s'exécutant
    later: set[str]  # noms que liront les fonctions qu'elle définit
    bound: set[str]  # noms qu'elle pose
    changed: set[str]  # noms dont elle modifie l'objet sans les poser
    costly: bool  # elle entraîne, ou dépend du budget

    @property
    def figure(self) -> ast.Call | None:
        """Appel qui affiche une figure interactive, s'il y en a un."""
        return next((call for call in calls(outside(self.tree)) if called(call) in FIGURES), None)


def outside(tree: ast.stmt):
    """Nœuds de `tree` qu'exécute l'instruction elle-même : ceux des fonctions qu'elle définit n'y sont pas."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def calls(nodes) -> list[ast.Call]:
    """Les appels, parmi ces nœuds."""
    return [node for node in nodes if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    """Dernier nom de ce qui est appelé : « fit » pour `training.fit(...)`."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def owner(node: ast.expr) -> str | None:
    """Nom du carnet auquel appartient cette expression : « net » pour `net.layers[0]`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return getattr(node, "id", None)


def names(code: types.CodeType, bound: set[str], later: bool = False):
    """Noms lus par ce code, dans l'ordre : (nom, lu plus tard ?) ; `bound` reçoit au passage ceux qu'il pose."""
    for step in dis.get_instructions(code):
        if isinstance(step.argval, types.CodeType):
            yield from names(step.argval, bound, later or step.argval.co_name not in INLINE)
        elif step.opname == "STORE_NAME" and code.co_name == "<module>":
            bound.add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and (later or step.argval not in bound):
            yield step.argval, later


def changes(nodes: list[ast.AST]) -> set[str]:
    """Noms dont l'objet peut être modifié : `net.eval()`, `rows[0] = …`, `fit(net, …)`, `Adam(net.parameters())`."""
    touched = [node for node in nodes
               if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store)]
    for call in calls(node.value for node in nodes if isinstance(node, ast.Expr)):
        if called(call) not in HARMLESS:
            touched += [call.func, *(part for part in call.args if isinstance(part, ast.Name))]
    for call in calls(nodes):
        if called(call) in COSTLY | {"parameters"}:
            touched += [call.func, *call.args]
    return set(filter(None, map(owner, touched)))


def statements(cells: list) -> list[Statement]:
    """Toutes les instructions d'un chapitre, exercices exceptés, dans l'ordre."""
    parsed, title = [], ""
    for cell in cells:
        if cell.cell_type == "markdown":
            title = ([title] + re.findall(r"^#{2,3} (.+)", cell.source, re.MULTILINE))[-1]
        elif "exercice" not in notebooks.tags(cell):
            parsed += [(tree, cell.id, title) for tree in ast.parse(cell.source).body]
    trees = [tree for tree, *_ in parsed]
    modules = {alias.asname or alias.name for tree in trees for node in outside(tree)
               if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    costly, found = costly_functions(trees), []
    for tree, cell_id, title in parsed:
        nodes, bound = list(outside(tree)), set()
        read = list(names(compile(ast.Module([tree], []), "<chapitre>", "exec"), bound))
        found.append(Statement(
            tree, cell_id, title, bound=bound, changed=changes(nodes) - bound - modules,
            now={name for name, later in read if not later},
            later={name for name, later in read if later} - bound,
            costly=not costly.isdisjoint(map(called, calls(nodes)))))
    return found


def costly_functions(trees: list[ast.stmt]) -> set[str]:
    """COSTLY, et les fonctions du chapitre qui les appellent, directement ou non."""
    inside = {node.name: set(map(called, calls(ast.walk(node)))) for tree in trees for node in ast.walk(tree)
              if isinstance(node, ast.FunctionDef)}
    found, size = set(COSTLY), 0
    while len(found) > size:
        size = len(found)
        found |= {name for name, used in inside.items() if used & found}
    return found


def writers(found: list[Statement], name: str, before: int) -> list[int]:
    """Rangs des instructions qui font ce que vaut `name` juste avant celle de rang `before`."""
    last = max((i for i in range(before) if name in found[i].bound), default=before)
    return [i for i in range(last, before) if i == last or name in found[i].changed]


def needs(found: list[Statement], figure: int) -> set[int]:
    """Rangs des instructions qu'il faut exécuter pour la figure de rang `figure`, elle comprise."""
    needed, todo = set(), [figure]
    while todo:
        i = todo.pop()
        if i not in needed:
            needed.add(i)
            todo += [w for name in found[i].now | found[i].later for w in writers(found, name, i)]
            todo += [w for name in found[i].later for w in writers(found, name, figure)]
    return needed


# --- Le carnet projeté ----------------------------------------------------------------------------


def build(target: notebooks.Target):
    """Carnet des figures d'un chapitre : une cellule par figure, `metadata.demo` dit son titre et ce qu'elle montre."""
    source = notebooks.generate(target, "")
    found = statements(source.cells)
    figures = [i for i, one in enumerate(found) if one.figure]
    needed = {i: needs(found, i) for i in figures}
    live = [i for i in figures if not any(found[j].costly for j in needed[i])]
    wanted = set().union(*(needed[i] for i in live))
    cells, done = [nbformat.v4.new_code_cell(PREAMBLE.format(root=str(cours.ROOT), dpi=DPI))], 0
    for i in figures:
        facts = {"title": plain(found[i].title), "alt": alt(found[i].figure), "live": i in live}
        if i in live:
            code = "\n".join(ast.unparse(found[j].tree) for j in sorted(wanted) if done <= j <= i)
            cells.append(nbformat.v4.new_code_cell(code, metadata={"demo": facts}))
            done = i + 1
        elif recorded := stored(target, found[i].cell):
            cells.append(nbformat.v4.new_markdown_cell(recorded, metadata={"demo": facts}))
    title = plain(re.search(r"^# (.+)", source.cells[0].source, re.MULTILINE)[1]).split(" (")[0]
    return nbformat.v4.new_notebook(cells=cells, metadata={**notebooks.KERNEL, "title": title})


def plain(markdown: str) -> str:
    """Titre sans son numéro, ni ses marques d'italique et de code."""
    return re.sub(r"^\d+\. |[*`]", "", markdown)


def alt(figure: ast.Call) -> str:
    """Texte alternatif d'une figure."""
    return next(ast.literal_eval(keyword.value) for keyword in figure.keywords if keyword.arg == "alt")


@functools.cache
def shipped(path):
    """Sorties HTML des cellules d'un carnet livré, par identifiant de cellule."""
    notebook = notebooks.read(path)
    outputs = [(cell.id, out.get("data", {}).get("text/html")) for cell in notebooks.code_cells(notebook)
               for out in cell.outputs] if notebook else []
    return {cell_id: text for cell_id, text in outputs if text}


def stored(target: notebooks.Target, cell_id: str) -> str | None:
    """Curseur enregistré dans le carnet livré, si la cellule n'a pas changé depuis."""
    return shipped(target.path).get(cell_id)


# --- Servir ---------------------------------------------------------------------------------------


def prepare(prefix: str) -> dict[str, str]:
    """Écrit les carnets des chapitres dont le nom commence par `prefix` ; leurs titres, par nom de fichier."""
    titles = {}
    for target in notebooks.students(cours.ROOT, prefix):
        notebook = build(target)
        notebooks.write(FOLDER / target.path.name, notebook)
        titles[target.path.name] = notebook.metadata.title
    return titles


def server(titles: dict[str, str], port: int):
    """Serveur Voilà des démonstrations, prêt à démarrer ; son attribut `page` est la page à ouvrir.

    D'un chapitre choisi, il exécute le carnet dès son démarrage, sans attendre le navigateur.
    """
    import tornado.web
    from traitlets.config import Config
    from voila.app import Voila

    chosen = next(iter(titles)) if len(titles) == 1 else ""

    class Home(tornado.web.RequestHandler):
        def get(self):
            self.write(self.settings["voila_jinja2_env"].get_template("home.html").render(titles=titles))

    class Demo(Voila):
        page = f"voila/render/{chosen}" if chosen else ""

        def setup_template_dirs(self):
            super().setup_template_dirs()
            self.template_paths.insert(0, str(TEMPLATES))

        def init_handlers(self):
            return [(r"/", Home), *super().init_handlers()]

    app = Demo(config=Config({
        "Voila": {"ip": "127.0.0.1", "port": port, "open_browser": False, "log_level": "ERROR",
                  "root_dir": str(FOLDER), "connection_dir_root": str(FOLDER), "config_file_paths": [],
                  # Sinon Tornado se plaint, en anglais, et refuse l'adieu de la page fermée, qui arrête son noyau.
                  "tornado_settings": {"ws_ping_timeout": 30_000, "disable_check_xsrf": True}},
        "VoilaConfiguration": {"extension_allowlist": EXTENSIONS, "http_keep_alive_timeout": 3600,
                               "preheat_kernel": bool(chosen)},
        "VoilaKernelManager": {"kernel_pools_config": {"default": {"pool_size": 0}, chosen: {"pool_size": 1}}},
        "MappingKernelManager": {"cull_idle_timeout": 60, "cull_interval": 30},  # page fermée, noyau arrêté
        "KernelManager": {"transport_encryption": "auto"},  # sinon chaque noyau avertit qu'il n'est pas chiffré
    }))
    app.initialize([])
    return app


async def announce(app, browser: bool) -> None:
    """Dit l'adresse et, si on le veut, l'ouvre ; une fois pris en charge, s'il y en a, le carnet exécuté d'avance."""
    while app.page and not app.kernel_manager.notebook_data:
        await asyncio.sleep(0.05)
    # Un noyau d'avance suffit : en préparer un autre ralentirait les gestes.
    app.kernel_manager.kernel_pools_config = {"default": {"pool_size": 0}}
    address = app.connection_url + app.page
    print(f"La démonstration est prête :\n\n    {address}\n\n"
          "Touche F11 : plein écran. Pour l'arrêter : Ctrl-C dans cette fenêtre.", flush=True)
    if browser:
        webbrowser.open(address)


def main() -> int:
    """Prépare les carnets, sert les démonstrations jusqu'à Ctrl-C ; renvoie le code de sortie."""
    parser = argparse.ArgumentParser(description="Projette les figures interactives d'un chapitre.")
    parser.add_argument("chapitre", nargs="?", default="", help="début de son nom : 07")
    parser.add_argument("--no-browser", action="store_true", help="n'ouvre pas le navigateur")
    parser.add_argument("--port", type=int, default=8866, help="premier port essayé")
    chosen = parser.parse_args()
    cours.confine()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # les gestes sont brefs : un second fil gênerait le navigateur
    os.environ.pop("COURS_FIGE", None)  # sans quoi les curseurs se figeraient
    try:
        app = server(prepare(chosen.chapitre), chosen.port)
    except notebooks.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"Il manque le paquet {error.name} : « make cours » l'installe.", file=sys.stderr)
        return 1
    import tornado.ioloop

    browser = not chosen.no_browser and "--no-browser" not in cours.options()
    tornado.ioloop.IOLoop.current().add_callback(announce, app, browser)  # une fois le port choisi
    app.start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
