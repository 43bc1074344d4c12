"""A shop's big day, made up: an assortment, its buyers, and every incident that the articles tell of.

Law: a scenario is a pure function of its size, its seed and its start, and it knows the answer. Each order carries what the
standard pack should say of it, so that "caught" and "false alarm" are counted, not felt. Nothing here sends anything.
"""

from orderstream.simulators.scenario import Delivery, Expected, Incident, Scenario, make, write_catalogue, write_replay

__all__ = ["Delivery", "Expected", "Incident", "Scenario", "make", "write_catalogue", "write_replay"]
