\set echo :ECHO
\set ECHO none
-- For the regress files: \i this where the schema of the test is first in search_path.
-- until(CONDITION) returns when the SQL condition holds, each look having a snapshot of
-- its own, and is an error after two minutes.
CREATE PROCEDURE until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	met boolean;
	give_up timestamptz := clock_timestamp() + interval '2 minutes';
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO met;
		COMMIT;
		EXIT WHEN met;
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'not within two minutes: %', condition;
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
\set ECHO :echo
