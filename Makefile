# Les commandes du cours. Chaque cible ne fait qu'appeler un outil : la logique est dans scripts/.
VENV := .venv
BIN := $(VENV)/bin

# Le premier Python qui convient ; `make cours PYTHON=/chemin/vers/python3` en impose un autre.
CONVIENT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c '$(CONVIENT)' 2>/dev/null && echo $$p && break; done)

.PHONY: aide cours demo test notebooks entrainer banc site publication adresse propre

aide:  ## affiche cette liste (cible par défaut)
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

cours: $(VENV)/.cours  ## installe le cours au premier appel, puis l'ouvre dans JupyterLab
	@$(BIN)/python scripts/cours.py

demo: $(VENV)/.cours  ## projette les figures interactives, plein écran et sans code ; CH=03 pour un seul chapitre
	@$(BIN)/python scripts/demo.py $(CH)

test: $(VENV)/.test  ## vérifie tout : style, mathématiques, carnets exécutés, site ; CH=03 pour un seul chapitre
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto $(if $(CH),--chapitre $(CH),--junitxml=build/essais.xml)

notebooks: $(VENV)/.cours  ## régénère et exécute les carnets ; CH=03 pour un seul chapitre
	$(BIN)/python scripts/notebooks.py --executer $(if $(CH),--chapitre $(CH))

entrainer: $(VENV)/.cours  ## refait les modèles livrés d'un chapitre (des heures) : make entrainer CH=03
	$(BIN)/python scripts/lancer.py entrainement $(CH)

site: $(VENV)/.site  ## construit le site, dans build/site/html
	$(BIN)/python scripts/site_web.py

publication: $(VENV)/.test  ## construit et valide une version, dans dist/
	$(BIN)/python scripts/publier.py

banc: $(VENV)/.test  ## refait les mesures citées (des heures), puis leur tableau ; CH=03 pour un seul chapitre
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt
	$(BIN)/python scripts/lancer.py banc $(CH)

adresse: $(VENV)/.cours  ## change l'adresse publique du dépôt : make adresse URL=https://github.com/nom/depot
	$(BIN)/python scripts/adresse.py $(URL)

propre:  ## supprime l'environnement et les caches (ni les carnets, ni runs/)
	rm -rf $(VENV) .venv-colab .jupyter build dist .pytest_cache .ruff_cache *.egg-info

# Installation. Un fichier-témoin par liste : rien n'est réinstallé tant que la liste n'a pas changé.
# uv installe en quelques secondes ; s'il manque ou échoue, pip fait le même travail en quelques minutes.
define installe
@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv || true
@$(BIN)/uv pip install --python $(BIN)/python -r $(1) \
	|| { echo "uv n'a pas pu installer : nouvel essai avec pip, plus lent."; \
	     $(BIN)/python -m pip install -r $(1); } \
	|| { echo "Installation impossible ; les lignes ci-dessus disent pourquoi. Le plus souvent, la connexion à internet"; \
	     echo "ou la place sur le disque manque : vérifiez-les, puis relancez la même commande."; exit 1; }
endef

$(VENV)/.cours: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installation du cours (environ 6 Go la première fois)..."
	$(call installe,requirements.txt)
	@touch $@

$(VENV)/.site: requirements-site.txt requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installation du cours et des outils du site (environ 6 Go la première fois)..."
	$(call installe,requirements-site.txt)
	@touch $(VENV)/.cours $@

$(VENV)/.test: requirements-dev.txt requirements-site.txt requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installation du cours et des outils de test (environ 6 Go la première fois)..."
	$(call installe,requirements-dev.txt)
	@touch $(VENV)/.cours $(VENV)/.site $@

requirements-site.txt requirements-dev.txt:
	@echo "Il manque $@ : l'archive de l'étudiant ne contient que le cours. Le dépôt entier sait aussi faire cela."; exit 1

$(BIN)/python:
	@"$(PYTHON)" -c '$(CONVIENT)' 2>/dev/null || { \
		echo "Le cours a besoin de Python 3.11, 3.12, 3.13 ou 3.14, introuvable ici."; \
		echo "Installez-le depuis https://www.python.org/downloads/ puis relancez la même commande,"; \
		echo "ou indiquez où il est : make cours PYTHON=/chemin/vers/python3"; exit 1; }
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python n'a pas pu créer l'environnement $(VENV)."; \
		echo "Sous Debian ou Ubuntu : sudo apt install python3-venv, puis relancez la même commande."; exit 1; }
