"""How each room stands on the page: which control calls which function of `latlas.app.rooms`."""
