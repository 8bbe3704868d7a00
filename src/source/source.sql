/*
 * source.sql
 *	  Foreign-data wrappers: where streams come from.
 */
CREATE FUNCTION stream_engine.kafka_fdw_handler() RETURNS fdw_handler
	AS '$libdir/stream_engine_source', 'se_kafka_fdw_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION stream_engine.kafka_fdw_handler() IS 'handler of the foreign-data wrapper stream_engine_kafka';

CREATE FUNCTION stream_engine.kafka_fdw_validator(options text[], catalog oid) RETURNS void
	AS '$libdir/stream_engine_source', 'se_kafka_fdw_validator' LANGUAGE C STRICT;
COMMENT ON FUNCTION stream_engine.kafka_fdw_validator(text[], oid) IS 'checks options of Kafka servers, user mappings and streams';

CREATE FUNCTION stream_engine.table_fdw_handler() RETURNS fdw_handler
	AS '$libdir/stream_engine_source', 'se_table_fdw_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION stream_engine.table_fdw_handler() IS 'handler of the foreign-data wrapper stream_engine_table';

CREATE FUNCTION stream_engine.table_fdw_validator(options text[], catalog oid) RETURNS void
	AS '$libdir/stream_engine_source', 'se_table_fdw_validator' LANGUAGE C STRICT;
COMMENT ON FUNCTION stream_engine.table_fdw_validator(text[], oid) IS 'checks options of table-backed servers and streams';

CREATE FOREIGN DATA WRAPPER stream_engine_kafka
	HANDLER stream_engine.kafka_fdw_handler VALIDATOR stream_engine.kafka_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER stream_engine_kafka IS 'streams of records from Kafka topics';

CREATE FOREIGN DATA WRAPPER stream_engine_table
	HANDLER stream_engine.table_fdw_handler VALIDATOR stream_engine.table_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER stream_engine_table IS 'streams of records from a table (partition, "offset", timestamp, key, value), for tests without a broker';
