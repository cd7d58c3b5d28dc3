"""Capacity plans: from requests, objectives and priced GPUs to the cheapest fleet that simulation shows to do."""
