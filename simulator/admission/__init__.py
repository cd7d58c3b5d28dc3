"""Admission control: a policy lets requests in or rejects them, before they are routed."""

from simulator.admission.feature import AdmissionFeature

__all__ = ["AdmissionFeature"]
