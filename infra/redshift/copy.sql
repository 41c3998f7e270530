-- Made by `movement gold --redshift-ddl DIR` from jobs/gold/tables.py; do not edit.
-- psql -v role=arn:aws:iam::<account>:role/<role that reads the lake> -f copy.sql
-- Loads each table anew, in one transaction: who queries meanwhile sees the old rows. Run it after `movement gold`.
BEGIN;
DELETE FROM movement_gold.corridors;
COPY movement_gold.corridors
FROM 's3://your-bucket/lake/gold/corridors/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold.corridor_history;
COPY movement_gold.corridor_history
FROM 's3://your-bucket/lake/gold/corridor_history/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold.city_summary;
COPY movement_gold.city_summary
FROM 's3://your-bucket/lake/gold/city_summary/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;

BEGIN;
DELETE FROM movement_gold.zones;
COPY movement_gold.zones
FROM 's3://your-bucket/lake/gold/zones/_copy_manifest/manifest.json'
IAM_ROLE :'role'
FORMAT AS PARQUET
MANIFEST;
COMMIT;
