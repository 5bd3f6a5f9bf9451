"""How hypothesis runs here: it counts examples, not seconds, so that a busy machine changes nothing."""

from hypothesis import HealthCheck, settings

settings.register_profile("swarmer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swarmer")
