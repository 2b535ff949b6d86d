"""An ImageSet as one model sees it: codes with provenance."""
