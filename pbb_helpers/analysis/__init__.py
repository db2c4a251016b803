"""From rows of answers to what may be said: intervals, floors, paired differences, claims, and the words for them. Needs no torch."""
