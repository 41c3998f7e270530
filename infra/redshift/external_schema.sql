-- Made by `movement gold --redshift-ddl DIR` from the contract; do not edit.
-- psql -v role=arn:aws:iam::<account>:role/<role that reads the lake and Glue> -f …
-- Spectrum reads Delta tables through their manifests: gold_…_manifest. `processed` is there too.
CREATE EXTERNAL SCHEMA IF NOT EXISTS movement_lake
FROM DATA CATALOG
DATABASE 'uber_movement'
IAM_ROLE :'role';

CREATE OR REPLACE VIEW movement_lake_corridors AS
SELECT "city", "origin_movement_id", "destination_movement_id", "date_range", "start_date", "end_date", "day_filter", "time_filter", "origin_display_name", "destination_display_name", "mean_travel_time_seconds", "lower_bound_travel_time_seconds", "upper_bound_travel_time_seconds", "shard_id", "sequence_number", "arrival_time", "batch"
FROM movement_lake.gold_corridors_manifest
WITH NO SCHEMA BINDING;

CREATE OR REPLACE VIEW movement_lake_corridor_history AS
SELECT "city", "origin_movement_id", "destination_movement_id", "date_range", "start_date", "end_date", "day_filter", "time_filter", "origin_display_name", "destination_display_name", "mean_travel_time_seconds", "lower_bound_travel_time_seconds", "upper_bound_travel_time_seconds", "shard_id", "sequence_number", "arrival_time", "batch"
FROM movement_lake.gold_corridor_history_manifest
WITH NO SCHEMA BINDING;

CREATE OR REPLACE VIEW movement_lake_city_summary AS
SELECT "city", "date_range", "start_date", "end_date", "rows", "corridors", "mean_travel_time_seconds", "median_travel_time_seconds", "p90_travel_time_seconds", "reliability"
FROM movement_lake.gold_city_summary_manifest
WITH NO SCHEMA BINDING;

CREATE OR REPLACE VIEW movement_lake_zones AS
SELECT "city", "movement_id", "display_name", "geometry", "centroid_longitude", "centroid_latitude", "shard_id", "sequence_number", "arrival_time", "batch"
FROM movement_lake.gold_zones_manifest
WITH NO SCHEMA BINDING;
