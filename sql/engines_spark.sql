-- Rule: the window tests of Spark Structured Streaming give here what they give there.  Spark moves the
-- watermark between batches, we with every record: its suites put records that depend on it into
-- batches of their own, so their results are the same.
\getenv src PG_ABS_SRCDIR
\set engines :src '/sql/engines.inc'
\set ECHO none
\i :engines
\set ECHO all

-- EventTimeWatermarkSuite, in seconds: a delay of 10 s, windows and gaps of 5 s
INSERT INTO engine_case (id, source, win, agg, delay, unit, shows, steps, theirs) VALUES
	(1, 'append mode', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 1000, 'all', '{10,11,12,13,14,15,25,10}',
		'{"null[10,15)=5","null[15,20)~1","null[25,30)~1",@10}'),
	(2, 'event time and watermark metrics, Trigger.Once', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 1000, 'all', '{15,10,12,14,25,50,50}',
		'{"null[10,15)=3","null[15,20)=1","null[25,30)=1","null[50,55)~2"}'),
	(3, 'update mode', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 1000, 'all', '{10,11,12,13,14,15,25,10,25,10}',
		'{"null[10,15)=5","null[15,20)~1","null[25,30)~2",@10,@10}'),
	(4, 'append mode - session', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 1000, 'all',
		'{1:10=10,1:11=11,1:17=17,2:25=25,3:35=35,1:10=10,4:40=40}',
		'{"1[10,16)=2/21","1[17,22)=1/17","2[25,30)=1/25","3[35,40)~1/35","4[40,45)~1/40",1@10}'),
	(5, 'append mode - session - no key', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 1000, 'all',
		'{10=10,11=11,17=17,25=25,35=35,10=10,40=40}', '{"null[10,16)=2/21","null[17,22)=1/17","null[25,30)=1/25","null[35,45)~2/75",@10}'),
	(6, 'update mode - session - keys overlapped with sessions', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 1000, 'all',
		'{0:10=10,1:11=11,0:12=12,1:13=13,1:17=17,1:25=25,1:35=35,1:27=27,0:10=10,0:40=40}',
		'{"0[10,17)=2/22","1[11,22)=3/41","1[25,32)~2/52","1[35,40)~1/35","0[40,45)~1/40",0@10}');
-- StreamingSessionWindowSuite: a delay of 30 s, a gap of 10 s
INSERT INTO engine_case (id, source, win, agg, delay, unit, shows, steps, theirs) VALUES
	(10, 'append mode - session window', $$session(ts, gap => '10 s')$$, 'count(*)', '30 s', 1000, 'all',
		'{hello:40,world:40,spark:40,streaming:40,world:41,hello:41,structured:41,streaming:41,spark:25,streaming:25,spark:0,streaming:0,spark:30,streaming:30,hello:60,apache:60,spark:60,structured:90,streaming:90}',
		'{"spark[25,50)=3","streaming[25,51)=4","hello[40,51)=2","world[40,51)=2","structured[41,51)=1","hello[60,70)~1","apache[60,70)~1","spark[60,70)~1","structured[90,100)~1","streaming[90,100)~1",spark@0,streaming@0}'),
	(11, 'complete mode - session window', $$session(ts, gap => '10 s')$$, 'count(*)', '300 s', 1000, 'all',
		'{hello:40,world:40,spark:40,streaming:40,world:41,hello:41,structured:41,streaming:41,spark:25,streaming:25,spark:30,streaming:30,hello:60,apache:60,spark:60,structured:90,streaming:90}',
		'{"spark[25,50)~3","streaming[25,51)~4","hello[40,51)~2","world[40,51)~2","structured[41,51)~1","hello[60,70)~1","apache[60,70)~1","spark[60,70)~1","structured[90,100)~1","streaming[90,100)~1"}');
-- the update mode of the same
INSERT INTO engine_case (id, source, win, agg, delay, unit, emit, shows, steps, theirs)
SELECT id + 50, source || ', update', win, agg, delay, unit, 'changes', shows, steps, theirs FROM engine_case WHERE id IN (3, 4, 5, 6, 10);
-- DataFrameTimeWindowingSuite, on 2016-03-27: 19:39:20 is 1459107560
INSERT INTO engine_case (id, source, win, agg, unit, shows, steps, theirs) VALUES
	(30, 'tumbling window groupBy statement with startTime', $$tumble(ts, '10 s', origin => '1970-01-01 00:00:05+00')$$, 'count(*)', 1000, 'end',
		'{a:1459107574,a:1459107596,b:1459107567}', '{"a[1459107565,1459107575)=1","a[1459107595,1459107605)=1","b[1459107565,1459107575)=1"}'),
	(31, 'SPARK-21590: tumbling window groupBy statement with negative startTime', $$tumble(ts, '10 s', origin => '1969-12-31 23:59:55+00')$$, 'count(*)', 1000, 'end',
		'{a:1459107574,a:1459107596,b:1459107567}', '{"a[1459107565,1459107575)=1","a[1459107595,1459107605)=1","b[1459107565,1459107575)=1"}'),
	(32, 'tumbling window with multi-column projection', $$tumble(ts, '10 s')$$, 'sum(v)', 1000, 'end',
		'{1459107574=1,1459107596=2,1459107567=4}', '{"null[1459107560,1459107570)=4","null[1459107570,1459107580)=1","null[1459107590,1459107600)=2"}'),
	(33, 'time window in SQL with three expressions', $$tumble(ts, '10 s', '1970-01-01 00:00:05+00')$$, 'sum(v)', 1000, 'end',
		'{1459107574=1,1459107596=2,1459107567=4}', '{"null[1459107565,1459107575)=5","null[1459107595,1459107605)=2"}'),
	(34, 'sliding window grouping, with the values of sliding window projection', $$hop(ts, '10 s', '3 s')$$, $$count(*) || '/' || sum(v)$$, 1000, 'end',
		'{1459107574=1,1459107596=2,1459107567=4}',
		'{"null[1459107558,1459107568)=1/4","null[1459107561,1459107571)=1/4","null[1459107564,1459107574)=1/4","null[1459107567,1459107577)=2/5","null[1459107570,1459107580)=1/1","null[1459107573,1459107583)=1/1","null[1459107588,1459107598)=1/2","null[1459107591,1459107601)=1/2","null[1459107594,1459107604)=1/2"}');

CALL make_cases();
CALL play_cases();
SELECT id, source, verdict, cardinality(got) AS rows, CASE WHEN verdict <> 'the same' THEN got END AS ours FROM verdict ORDER BY id;
SELECT count(*) FILTER (WHERE decoded <> counted + late) AS unaccounted, sum(decoded) AS decoded, sum(late) AS late FROM stream_engine.stat_queries;
-- as a batch they give the same
SELECT units(1000, window_start) AS start, n FROM q34_batch EXCEPT ALL SELECT units(1000, window_start), n FROM q34;
SELECT count(*) FROM q34_batch;

-- StreamingAggregationSuite: counts that go on for ever, in update mode
SELECT make_topic('tab') AS tab \gset
SELECT stream_engine.create_stream('tab', server => 'engines_1', topic => :'tab', columns => 'ts timestamptz EPOCH ''us'', v int', event_time => 'ts', staging_retention => '0');
SELECT stream_engine.create_query('simple_count', 'SELECT v, count(*) AS n FROM tab GROUP BY v', trigger_count => 1);
SELECT stream_engine.create_query('multiple_keys', 'SELECT v, v + 1 AS next, count(*) AS n FROM tab GROUP BY v, v + 1', trigger_count => 1);
SELECT stream_engine.create_query('sums', 'SELECT count(*) AS n, sum(v) AS s, sum(v) FILTER (WHERE v = 2) AS twos FROM tab', trigger_count => 1);
CREATE PROCEDURE add(data int[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO outbox (topic, value) SELECT 'tab', json_build_object('ts', 1000, 'v', d)::text FROM unnest(data) WITH ORDINALITY AS u (d, i) ORDER BY i;
	CALL deliver();
	COMMIT;
	CALL stream_engine.wait('engines.tab', '1 minute');
END $$;
CALL add('{3}');
SELECT v, n, revision FROM simple_count ORDER BY 1;
CALL add('{3,2}');
SELECT v, n, revision FROM simple_count ORDER BY 1;
CALL add('{3,2,1}');
SELECT v, n, revision FROM simple_count ORDER BY 1;
CALL add('{4,4,4,4}');
SELECT v, n FROM simple_count ORDER BY 1;
SELECT v, next, n FROM multiple_keys ORDER BY 1;
SELECT n, s, twos FROM sums;

\set ECHO none
\set ends :src '/sql/engines_end.inc'
\i :ends
