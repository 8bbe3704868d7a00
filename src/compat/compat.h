/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Everything that differs between PostgreSQL 15, 16, 17 and 18
 *
 * NOTES
 *	  Small macros and inline functions only.  Each has the meaning of the
 *	  newest server's name, prefixed with "se_" or "SE_", so that it can be
 *	  dropped when the oldest server is.
 *
 * IDENTIFICATION
 *	  src/compat/compat.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef SE_COMPAT_H
#define SE_COMPAT_H

/* 16: the macros of variable-length values are no longer in postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18: what was in commands/explain.h is in three files */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* 17: intervals may be infinite */
#if PG_VERSION_NUM >= 170000
#define SE_INTERVAL_NOT_FINITE(i)	INTERVAL_NOT_FINITE(i)
#else
#define SE_INTERVAL_NOT_FINITE(i)	((void) (i), false)
#endif

/* 16: make_range() can report errors softly */
#if PG_VERSION_NUM >= 160000
#define se_make_range(typcache, lower, upper, empty) \
	make_range(typcache, lower, upper, empty, NULL)
#else
#define se_make_range(typcache, lower, upper, empty) \
	make_range(typcache, lower, upper, empty)
#endif

/* 16: one function checks the ownership of any object */
#if PG_VERSION_NUM >= 160000
#define se_database_ownercheck(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#define se_extension_ownercheck(extension, role) \
	object_ownercheck(ExtensionRelationId, extension, role)
#else
#define se_database_ownercheck(database, role) \
	pg_database_ownercheck(database, role)
#define se_extension_ownercheck(extension, role) \
	pg_extension_ownercheck(extension, role)
#endif

/* 16: the "extra" of a setting comes from guc_malloc, which pairs with guc_free */
#if PG_VERSION_NUM >= 160000
#define se_guc_malloc(size)			guc_malloc(LOG, size)
#define se_guc_free(pointer)		guc_free(pointer)
#else
#define se_guc_malloc(size)			malloc(size)
#define se_guc_free(pointer)		free(pointer)
#endif

/* 17: wait event sets belong to resource owners, events of extensions have names */
#if PG_VERSION_NUM >= 170000
#define se_create_wait_event_set(nevents)	CreateWaitEventSet(NULL, nevents)
#define se_wait_event_new(name)				WaitEventExtensionNew(name)
#else
#define se_create_wait_event_set(nevents)	CreateWaitEventSet(TopMemoryContext, nevents)
#define se_wait_event_new(name)				PG_WAIT_EXTENSION
#endif

/* 17: transactions have a timeout */
#define SE_HAVE_TRANSACTION_TIMEOUT (PG_VERSION_NUM >= 170000)

/* 18: a library can tell its name and version */
#ifdef PG_MODULE_MAGIC_EXT
#define SE_MODULE_MAGIC(library, release) \
	PG_MODULE_MAGIC_EXT(.name = library, .version = release)
#else
#define SE_MODULE_MAGIC(library, release)	PG_MODULE_MAGIC
#endif

/* 16: privileges to check are apart from the range table */
#if PG_VERSION_NUM >= 160000
#define se_check_query_permissions(query) \
	((void) ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true))
#define se_aclcheck_function(oid, role) \
	object_aclcheck(ProcedureRelationId, oid, role, ACL_EXECUTE)
#else
#define se_check_query_permissions(query) \
	((void) ExecCheckRTPerms((query)->rtable, true))
#define se_aclcheck_function(oid, role) \
	pg_proc_aclcheck(oid, role, ACL_EXECUTE)
#endif

/* 18: GROUP BY's expressions are held apart, others refer to them */
#if PG_VERSION_NUM >= 180000
#define se_flatten_group_exprs(query, node) \
	((query)->hasGroupRTE && (node) != NULL ? flatten_group_exprs(NULL, query, node) : (node))
#define se_rte_group_exprs(entry)	((entry)->groupexprs)
#else
#define se_flatten_group_exprs(query, node)	((void) (query), (node))
#define se_rte_group_exprs(entry)	((void) (entry), NIL)
#endif

/* 17: the locale of an ICU collation moved into a common column */
#if PG_VERSION_NUM >= 170000
#define SE_ANUM_COLLATION_ICU_LOCALE	Anum_pg_collation_colllocale
#else
#define SE_ANUM_COLLATION_ICU_LOCALE	Anum_pg_collation_colliculocale
#endif

/* The token that the core scanner gives for a string constant: the same in all. */
#define SE_TOKEN_SCONST 261

/* 16: names are parsed with an optional soft error */
#if PG_VERSION_NUM >= 160000
#define se_string_to_qualified_name_list(string) stringToQualifiedNameList(string, NULL)
#define se_relation_owned(relid, role) object_ownercheck(RelationRelationId, relid, role)
#else
#define se_string_to_qualified_name_list(string) stringToQualifiedNameList(string)
#define se_relation_owned(relid, role) pg_class_ownercheck(relid, role)
#endif

/* 18: index scans can be instrumented */
#if PG_VERSION_NUM >= 180000
#define se_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define se_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 16: which indexes an update must touch */
#if PG_VERSION_NUM >= 160000
#define se_exec_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#else
#define se_exec_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

/* 16: input functions can report errors softly */
#define SE_HAVE_SOFT_ERRORS (PG_VERSION_NUM >= 160000)

/* 18: a check constraint can be NOT ENFORCED */
#if PG_VERSION_NUM >= 180000
#define se_check_is_enforced(check)	((check)->ccenforced)
#else
#define se_check_is_enforced(check)	((void) (check), true)
#endif

/* 17, 18: foreign paths know their restrictions and disabled nodes */
#if PG_VERSION_NUM >= 180000
#define se_create_foreignscan_path(root, rel, rows, startup, total, required_outer) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, NIL, required_outer, NULL, \
							NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define se_create_foreignscan_path(root, rel, rows, startup, total, required_outer) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, required_outer, NULL, \
							NIL, NIL)
#else
#define se_create_foreignscan_path(root, rel, rows, startup, total, required_outer) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, required_outer, NULL, NIL)
#endif

/* 16: the user whose rights a foreign scan has is in its plan */
#if PG_VERSION_NUM >= 160000
#define se_foreign_scan_user(plan, estate)	((plan)->checkAsUser)
#else
#define se_foreign_scan_user(plan, estate) \
	(exec_rt_fetch((plan)->scan.scanrelid, estate)->checkAsUser)
#endif

/* 18: the attribute stands in front of the declaration */
#ifdef pg_noreturn
#define se_noreturn pg_noreturn
#else
#define se_noreturn pg_attribute_noreturn()
#endif

/* 17: the leader of a parallel query may start internal subtransactions */
#if PG_VERSION_NUM >= 170000
#define se_subtransactions_allowed()	(!IsParallelWorker())
#else
#define se_subtransactions_allowed()	(!IsInParallelMode())
#endif

/* 18: a collation's properties are members of its locale */
#if PG_VERSION_NUM >= 180000
#define se_collation_is_c(collation)	(pg_newlocale_from_collation(collation)->collate_is_c)
#else
#define se_collation_is_c(collation)	lc_collate_is_c(collation)
#endif

/* 17: nothing in core raises it any more */
#define SE_ERRCODE_SNAPSHOT_TOO_OLD MAKE_SQLSTATE('7', '2', '0', '0', '0')

/* 17 and 18: what else the result relation is to be good for */
#if PG_VERSION_NUM >= 180000
#define se_check_valid_result_rel(relation, operation) \
	CheckValidResultRel(relation, operation, ONCONFLICT_NONE, NIL)
#elif PG_VERSION_NUM >= 170000
#define se_check_valid_result_rel(relation, operation) \
	CheckValidResultRel(relation, operation, NIL)
#else
#define se_check_valid_result_rel(relation, operation) CheckValidResultRel(relation, operation)
#endif

/* 17: JSON_TABLE is an item of FROM by itself */
#define SE_HAVE_JSON_TABLE (PG_VERSION_NUM >= 170000)

/*
 * Servers of one generation read each other's stored states after pg_upgrade: keys
 * hash alike, and what core's aggregates write by their serialization functions has
 * the same form.  An aggregate whose transition type differs tells so by that type.
 */
#if PG_VERSION_NUM < 190000
#define SE_STATE_GENERATION 15
#else
#define SE_STATE_GENERATION (PG_VERSION_NUM / 10000)
#endif

#endif							/* SE_COMPAT_H */
