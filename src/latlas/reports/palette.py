"""One visual language: the same colour for the same idea in every figure. Okabe and Ito's colours, safe for the colour-blind."""

INK = "#1c2430"  # text and axes; becomes the page's own text colour, so that figures follow a dark theme
MUTED = "#8a94a3"

ACTIVE = "#0072b2"
COLLAPSED = "#b3bac4"
GAIN = "#0072b2"
KL = "#e69f00"

SOURCE = "#56b4e9"
TARGET = "#009e73"
RELOCATED = "#0072b2"
BOUND = "#b3bac4"
SUPPORT = "#cc79a7"

OWN = "#009e73"
ORDINARY = "#0072b2"
FOREIGN = "#d55e00"

SERIES = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9")  # things that only have to be told apart
