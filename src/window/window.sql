/* src/window/window.sql */

-- Windows of event time.  They live in the extension's own schema, so that a
-- query can be read without a prefix.  All times are timestamptz; the functions
-- look at no setting, which is what makes them IMMUTABLE.

CREATE FUNCTION @extschema@.tumble(ts timestamptz, size interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_tumble'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.tumble(timestamptz, interval, timestamptz, text) IS
    'the tumbling window that holds an instant';

CREATE FUNCTION @extschema@.hop(ts timestamptz, size interval, every interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_hop'
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 10;

COMMENT ON FUNCTION @extschema@.hop(timestamptz, interval, interval, timestamptz, text) IS
    'the hopping windows that hold an instant, one starting every so often';

CREATE FUNCTION @extschema@.cumulate(ts timestamptz, size interval, step interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_cumulate'
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 10;

COMMENT ON FUNCTION @extschema@.cumulate(timestamptz, interval, interval, timestamptz, text) IS
    'the windows that hold an instant, of those that start with a period and grow by a step';

CREATE FUNCTION @extschema@.session(ts timestamptz, gap interval)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_session'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.session(timestamptz, interval) IS
    'the session that holds an instant; only in continuous queries';

-- A time without zone has to be given one by the user: the implicit cast to
-- timestamptz would take it from the setting of TimeZone.  These functions catch
-- such calls before the cast does, and raise an error that says so.

CREATE FUNCTION @extschema@.tumble(ts timestamp, size interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.tumble(timestamp, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.hop(ts timestamp, size interval, every interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.hop(timestamp, interval, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.cumulate(ts timestamp, size interval, step interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.cumulate(timestamp, interval, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.session(ts timestamp, gap interval)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.session(timestamp, interval) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.tumble(ts date, size interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.tumble(date, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.hop(ts date, size interval, every interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.hop(date, interval, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.cumulate(ts date, size interval, step interval,
    origin timestamptz DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS SETOF tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.cumulate(date, interval, interval, timestamptz, text) IS
    'raises an error: windows need a timestamp with time zone';

CREATE FUNCTION @extschema@.session(ts date, gap interval)
RETURNS tstzrange
AS 'MODULE_PATHNAME', 'se_window_needs_zone'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.session(date, interval) IS
    'raises an error: windows need a timestamp with time zone';
