"""Networks only: no loss, no sampling."""
