"""Fusion: the vectors of a row's parts -> one vector, in which the heads read. One interface, four forms.

    interface.py      what every form can do
    summing.py        f = a_text f_text + a_image f_image + ..., with learned weights
    concatenation.py  f = [f_text; f_image; ...]
    gated.py          f = g_text f_text + g_image f_image + ..., with gates that see all parts and the query
    attention.py      the parts attend to one another, and the query to them

Sum and concatenation are linear in the parts: what each adds to a score is exact. The other two let the parts speak
about each other: what a part adds is what the score loses without it.
"""

from serving.model.config import FusionForm
from serving.model.fusion.attention import Attention
from serving.model.fusion.concatenation import Concatenation
from serving.model.fusion.gated import Gated
from serving.model.fusion.interface import Fusion
from serving.model.fusion.summing import WeightedSum

__all__ = ["Attention", "Concatenation", "Fusion", "Gated", "WeightedSum", "fusion_of"]

FORMS: dict[FusionForm, type[Fusion]] = {
    "sum": WeightedSum,
    "concatenation": Concatenation,
    "attention": Attention,
    "gated": Gated,
}


def fusion_of(form: FusionForm, parts: int, width: int, context: int) -> Fusion:
    """An untrained fusion of `parts` vectors of a width, for queries and users of `context` numbers."""
    return FORMS[form](parts, width, context)
