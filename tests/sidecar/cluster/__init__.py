"""Tests of clusters, balancers, outlier detection and DNS discovery."""
