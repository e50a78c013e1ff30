"""Speed, as figures that are printed and never asserted."""
