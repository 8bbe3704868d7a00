-- Rule: only options on the allow-list are taken, each in its place, with a value
-- that makes sense; a refusal says why, and shows no secret.
SET timezone = 'UTC';
CREATE SERVER opt_kafka FOREIGN DATA WRAPPER stream_engine_kafka
	OPTIONS (bootstrap_servers 'broker.example:9092', security_protocol 'sasl_ssl',
		sasl_mechanism 'SCRAM-SHA-512', fetch_wait_max_ms '50');
CREATE SERVER opt_table FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.opt_log');

-- the brokers
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_kafka;
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '');
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'a:9092,,b:9092');
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'a:99999');
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers ':9092');
ALTER SERVER opt_kafka OPTIONS (DROP bootstrap_servers);
ALTER SERVER opt_kafka OPTIONS (SET bootstrap_servers 'a, b:9092 ,[::1]:9093');

-- what is refused, and why
ALTER SERVER opt_kafka OPTIONS (ADD plugin_library_paths '/tmp/x.so');
ALTER SERVER opt_kafka OPTIONS (ADD ssl_engine_location '/tmp/x.so');
ALTER SERVER opt_kafka OPTIONS (ADD sasl_kerberos_kinit_cmd 'true');
ALTER SERVER opt_kafka OPTIONS (ADD sasl_kerberos_principal 'x');
ALTER SERVER opt_kafka OPTIONS (ADD test_mock_num_brokers '3');
ALTER SERVER opt_kafka OPTIONS (ADD debug 'all');
ALTER SERVER opt_kafka OPTIONS (ADD enable_auto_commit 'true');
ALTER SERVER opt_kafka OPTIONS (ADD auto_offset_reset 'latest');
ALTER SERVER opt_kafka OPTIONS (ADD isolation_level 'read_uncommitted');
ALTER SERVER opt_kafka OPTIONS (ADD sasl_oauthbearer_token_endpoint_url 'x');
ALTER SERVER opt_kafka OPTIONS (ADD rebalance_cb 'x');
ALTER SERVER opt_kafka OPTIONS (ADD acks 'all');
ALTER SERVER opt_kafka OPTIONS (ADD ssl_key_location '/tmp/key');
ALTER SERVER opt_kafka OPTIONS (ADD "fetch.min.bytes" '1');
ALTER SERVER opt_kafka OPTIONS (ADD fetch_mim_bytes '1');
ALTER SERVER opt_kafka OPTIONS (ADD no_such_thing_at_all '1');
ALTER SERVER opt_kafka OPTIONS (ADD topic 'x');

-- values
ALTER SERVER opt_kafka OPTIONS (ADD security_protocoll 'ssl');
ALTER SERVER opt_kafka OPTIONS (SET security_protocol 'tls');
ALTER SERVER opt_kafka OPTIONS (SET sasl_mechanism 'OAUTHBEARER');
ALTER SERVER opt_kafka OPTIONS (SET fetch_wait_max_ms 'soon');
ALTER SERVER opt_kafka OPTIONS (SET fetch_wait_max_ms '-1');
ALTER SERVER opt_kafka OPTIONS (ADD queued_min_messages '99999999999');
ALTER SERVER opt_kafka OPTIONS (ADD queued_min_messages '99999999999999999999999');
ALTER SERVER opt_kafka OPTIONS (ADD check_crcs 'yes');
ALTER SERVER opt_kafka OPTIONS (ADD client_id '');
ALTER SERVER opt_kafka OPTIONS (ADD ssl_ca_location 'ca.pem');

-- secrets belong on the user mapping, and are not repeated
ALTER SERVER opt_kafka OPTIONS (ADD sasl_password 'swordfish');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka OPTIONS (sasl_username 'me', sasl_password '');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka
	OPTIONS (sasl_username 'me', sasl_password 'swordfish', sasl_password_file '/tmp/password');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka
	OPTIONS (sasl_username 'me', sasl_passwort 'swordfish');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka
	OPTIONS (bootstrap_servers 'elsewhere:9092');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka OPTIONS (sasl_username 'me', sasl_password 'swordfish');
DROP USER MAPPING FOR CURRENT_USER SERVER opt_kafka;

-- streams
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka;
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic '');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 'no blanks');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic '..');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', format 'jsonn');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', watermark_delay '-1 s');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', watermark_delay '1 month');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', idle_timeout 'soon');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', start 'now');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', start '2026-01-01 00:00');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', on_error 'ignore');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', on_error_limit '-5');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', workers '0');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', staging_max_size 'big');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', sasl_username 'me');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', security_protocol 'ssl');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', path '$.a');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't', watermark_dely '1 s');
CREATE FOREIGN TABLE opt_s (a int OPTIONS (path 'a.b')) SERVER opt_kafka OPTIONS (topic 't');
CREATE FOREIGN TABLE opt_s (a timestamptz OPTIONS (epoch 'ns')) SERVER opt_kafka OPTIONS (topic 't');
CREATE FOREIGN TABLE opt_s (a int OPTIONS (topic 't')) SERVER opt_kafka OPTIONS (topic 't');
CREATE FOREIGN TABLE opt_s (a int OPTIONS (path '$.x.y'), t timestamptz OPTIONS (epoch 'ms')) SERVER opt_kafka
	OPTIONS (topic 'a.b_c-1', format 'json', event_time 't', watermark_delay '10 seconds', idle_timeout '0',
		idle_close '1 day', max_future '1 hour', start '2026-01-01 00:00+01', on_error 'skip', on_error_limit '10',
		staging_retention '0', staging_max_size '64 MB', workers '2', fetch_wait_max_ms '10');
DROP FOREIGN TABLE opt_s;

-- a server behind a login needs a name and a password before anything is asked
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't');
SELECT * FROM opt_s;
CREATE USER MAPPING FOR PUBLIC SERVER opt_kafka OPTIONS (sasl_username 'me', sasl_password_file '/nonexistent/password');
SELECT * FROM opt_s;
ALTER SERVER opt_kafka OPTIONS (DROP sasl_mechanism);
SELECT * FROM opt_s;
DROP FOREIGN TABLE opt_s;

-- files of the server, and what only superusers may set
CREATE ROLE regress_opt_user;
GRANT USAGE ON FOREIGN DATA WRAPPER stream_engine_kafka TO regress_opt_user;
GRANT USAGE ON FOREIGN SERVER opt_kafka TO regress_opt_user;
SET ROLE regress_opt_user;
CREATE SERVER opt_y FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'a', ssl_ca_location '/etc/ca.pem');
CREATE SERVER opt_y FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'a', sasl_mechanism 'GSSAPI');
CREATE SERVER opt_y FOREIGN DATA WRAPPER stream_engine_kafka
	OPTIONS (bootstrap_servers 'a', enable_ssl_certificate_verification 'false');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka OPTIONS (ssl_key_file '/etc/key.pem');
RESET ROLE;
GRANT pg_read_server_files TO regress_opt_user;
SET ROLE regress_opt_user;
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_kafka OPTIONS (ssl_key_file '/etc/key.pem');
RESET ROLE;
-- checked again when it is used
REVOKE pg_read_server_files FROM regress_opt_user;
ALTER SERVER opt_kafka OPTIONS (SET security_protocol 'ssl');
CREATE FOREIGN TABLE opt_s (a int) SERVER opt_kafka OPTIONS (topic 't');
GRANT SELECT ON opt_s TO regress_opt_user;
SET ROLE regress_opt_user;
SELECT * FROM opt_s;
RESET ROLE;

-- table-backed servers
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_table;
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'unqualified');
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'a.b', partition '1');
CREATE SERVER opt_x FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'a.b', partitions '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER opt_table OPTIONS (sasl_username 'me');
CREATE FOREIGN TABLE opt_t (a int) SERVER opt_table;
SELECT * FROM opt_t;
CREATE TABLE opt_log (partition int, "offset" bigint, timestamp timestamptz, key text, value bytea);
SELECT * FROM opt_t;

DROP SERVER opt_kafka CASCADE;
DROP SERVER opt_table CASCADE;
DROP TABLE opt_log;
REVOKE USAGE ON FOREIGN DATA WRAPPER stream_engine_kafka FROM regress_opt_user;
DROP ROLE regress_opt_user;
