-- Made by `movement gold --redshift-ddl DIR` from the contract; do not edit.
CREATE SCHEMA IF NOT EXISTS movement_gold;

CREATE TABLE IF NOT EXISTS movement_gold."corridors" (
    "city"                            VARCHAR(1024),
    "origin_movement_id"              VARCHAR(1024),
    "destination_movement_id"         VARCHAR(1024),
    "date_range"                      VARCHAR(1024),
    "start_date"                      DATE,
    "end_date"                        DATE,
    "day_filter"                      VARCHAR(1024),
    "time_filter"                     VARCHAR(1024),
    "origin_display_name"             VARCHAR(1024),
    "destination_display_name"        VARCHAR(1024),
    "mean_travel_time_seconds"        INTEGER,
    "lower_bound_travel_time_seconds" INTEGER,
    "upper_bound_travel_time_seconds" INTEGER,
    "shard_id"                        VARCHAR(1024),
    "sequence_number"                 VARCHAR(1024),
    "arrival_time"                    TIMESTAMP,
    "batch"                           VARCHAR(1024),
    PRIMARY KEY ("city", "origin_movement_id", "destination_movement_id", "date_range")
)
DISTSTYLE AUTO
SORTKEY ("city", "origin_movement_id");
COMMENT ON TABLE movement_gold."corridors" IS 'The latest row of each origin, destination and period';

CREATE TABLE IF NOT EXISTS movement_gold."corridor_history" (
    "city"                            VARCHAR(1024),
    "origin_movement_id"              VARCHAR(1024),
    "destination_movement_id"         VARCHAR(1024),
    "date_range"                      VARCHAR(1024),
    "start_date"                      DATE,
    "end_date"                        DATE,
    "day_filter"                      VARCHAR(1024),
    "time_filter"                     VARCHAR(1024),
    "origin_display_name"             VARCHAR(1024),
    "destination_display_name"        VARCHAR(1024),
    "mean_travel_time_seconds"        INTEGER,
    "lower_bound_travel_time_seconds" INTEGER,
    "upper_bound_travel_time_seconds" INTEGER,
    "shard_id"                        VARCHAR(1024),
    "sequence_number"                 VARCHAR(1024),
    "arrival_time"                    TIMESTAMP,
    "batch"                           VARCHAR(1024)
)
DISTSTYLE AUTO
SORTKEY ("city", "start_date");
COMMENT ON TABLE movement_gold."corridor_history" IS 'Every row that was ever processed, once';

CREATE TABLE IF NOT EXISTS movement_gold."city_summary" (
    "city"                       VARCHAR(1024),
    "date_range"                 VARCHAR(1024),
    "start_date"                 DATE,
    "end_date"                   DATE,
    "rows"                       BIGINT,
    "corridors"                  BIGINT,
    "mean_travel_time_seconds"   DOUBLE PRECISION,
    "median_travel_time_seconds" DOUBLE PRECISION,
    "p90_travel_time_seconds"    DOUBLE PRECISION,
    "reliability"                DOUBLE PRECISION,
    PRIMARY KEY ("city", "date_range")
)
DISTSTYLE ALL;
COMMENT ON TABLE movement_gold."city_summary" IS 'Travel times of a city in a period, over its corridors';

CREATE TABLE IF NOT EXISTS movement_gold."zones" (
    "city"               VARCHAR(1024),
    "movement_id"        VARCHAR(1024),
    "display_name"       VARCHAR(1024),
    "geometry"           VARCHAR(65535),
    "centroid_longitude" DOUBLE PRECISION,
    "centroid_latitude"  DOUBLE PRECISION,
    "shard_id"           VARCHAR(1024),
    "sequence_number"    VARCHAR(1024),
    "arrival_time"       TIMESTAMP,
    "batch"              VARCHAR(1024),
    PRIMARY KEY ("city", "movement_id")
)
DISTSTYLE AUTO
SORTKEY ("city", "movement_id");
COMMENT ON TABLE movement_gold."zones" IS 'Each zone''s name, outline and middle';
