"""Encoders: what a product or a query is -> unit vectors. They run when content changes, not when a price does.

pooling.py      many vectors -> one, by attention
text.py         pieces of words -> vector; read as a bag, by a Transformer or by a BiLSTM
image.py        pixels -> vector, by a CNN for 64 to 224 pixels
video.py        frames through the image CNN, then over time -> vector
audio.py        log-mel -> vector, by a CNN
attributes.py   name=value ids -> vector, and likeness
tastes.py       what people did with products -> the directions in which people differ
product.py      the product tower: one vector per modality
query.py        the query tower
"""

from serving.model.encoders.product import ProductEncoder
from serving.model.encoders.query import QueryEncoder

__all__ = ["ProductEncoder", "QueryEncoder"]
