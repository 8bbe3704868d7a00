/* src/query has no SQL objects of its own: validate_query stands in catalog.sql. */
