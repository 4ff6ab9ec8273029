"""L'exercice du chapitre jouet."""

from utils.exercises import Mistake, Spec, generator, normal

EXERCISES = {"double": Spec(
    oracle=lambda x: x + x,
    cases=lambda: [(normal(generator(0), n),) for n in (4, 1)],
    mistakes={"somme au lieu de produit": Mistake(
        lambda x: x + 2, "Vous ajoutez deux ; pour quel nombre est-ce la même chose que doubler ?")},
)}
