"""Read by Django, here and in the program that a test starts."""

import importlib.util
import os

import psycopg

parameters = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parameters["dbname"],
        "USER": parameters.get("user", ""),
        "PASSWORD": parameters.get("password", ""),
        "HOST": parameters["host"],
        "PORT": parameters.get("port", ""),
    }
}
TASKS = {
    "default": {
        "BACKEND": "openworkflow.django.OpenWorkflowBackend",
        "OPTIONS": {"max_attempts": 2, "namespace_id": "site"},
    }
}
IN_DJANGO = importlib.util.find_spec("django.tasks") is not None
INSTALLED_APPS = [] if IN_DJANGO else ["django_tasks"]
USE_TZ = True
