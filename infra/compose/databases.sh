#!/usr/bin/env bash
# Run once by PostgreSQL's image, while its volume is new: a database and a user each for Prefect and MLflow.
set -euo pipefail
for name in prefect mlflow; do
  password=${name^^}_DATABASE_PASSWORD
  psql --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
    --set=name="$name" --set=password="${!password:?}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
