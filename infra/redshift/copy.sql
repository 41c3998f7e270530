-- Made by `movement gold --redshift-ddl DIR` from the contract; do not edit.
-- psql -v role=arn:aws:iam::<account>:role/<role that reads the lake> -f copy.sql
-- Replaces each table's rows in one transaction; queries see the old rows until then. Run it after `movement gold`.
BEGIN;
DELETE FROM movement_gold."corridors";
COPY movement_gold."corridors"
FROM 's3://your-bucket/lake/gold/corridors/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold."corridor_history";
COPY movement_gold."corridor_history"
FROM 's3://your-bucket/lake/gold/corridor_history/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold."city_summary";
COPY movement_gold."city_summary"
FROM 's3://your-bucket/lake/gold/city_summary/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold."zones";
COPY movement_gold."zones"
FROM 's3://your-bucket/lake/gold/zones/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;
