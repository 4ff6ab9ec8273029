"""Outils du cours : données, réseaux, entraînement, figures, curseurs, exercices."""
