/*-------------------------------------------------------------------------
 *
 * hooks.c
 *	  Commands that workers have to make way for
 *
 * NOTES
 *	  DROP DATABASE, CREATE DATABASE with this template, ALTER DATABASE RENAME and
 *	  SET TABLESPACE fail as long as somebody is connected to the database, be it
 *	  one of our workers.  So its workers are stopped before the command, and may
 *	  start again when its transaction has ended or the command has failed.
 *	  ALTER EXTENSION ... UPDATE does the same with the workers of its own database,
 *	  which are about to see other tables.
 *
 *	  That would allow anybody to stop workers by commands that are then refused;
 *	  so it is done for those only who own the object.  All other checks, and the
 *	  error when the workers could not be stopped in time, are the command's own.
 *
 *	  What the extension is made of keeps its names: renamed or moved, nothing would
 *	  find it, and all streams of the database would stop with the views that could
 *	  tell.
 *
 *	  After DROP commands that can take a stream away the manager looks again, for
 *	  workers do not wait for anything that they could notice.
 *
 * IDENTIFICATION
 *	  src/engine/hooks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "compat/compat.h"
#include "engine/internal.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"

/* How long a command waits for workers to leave. */
#define STOP_TIMEOUT_MS 10000

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

/* The value of a string option, NULL if it is not there. */
static const char *
find_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* The name of the database that must have no connections for this command. */
static const char *
database_to_stop(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			return castNode(DropdbStmt, parsetree)->dbname;
		case T_CreatedbStmt:
			return find_option(castNode(CreatedbStmt, parsetree)->options, "template");
		case T_AlterDatabaseStmt:
			{
				AlterDatabaseStmt *stmt = castNode(AlterDatabaseStmt, parsetree);

				return find_option(stmt->options, "tablespace") ? stmt->dbname : NULL;
			}
		case T_RenameStmt:
			{
				RenameStmt *stmt = castNode(RenameStmt, parsetree);

				return stmt->renameType == OBJECT_DATABASE ? stmt->subname : NULL;
			}
		default:
			return NULL;
	}
}

/*
 * The database whose workers have to leave for this command of this user;
 * InvalidOid for none.
 */
static Oid
workers_to_stop(Node *parsetree)
{
	const char *name;

	if (IsA(parsetree, AlterExtensionStmt))
	{
		AlterExtensionStmt *stmt = castNode(AlterExtensionStmt, parsetree);
		Oid			extension;

		if (strcmp(stmt->extname, SE_EXTENSION_NAME) != 0)
			return InvalidOid;
		extension = get_extension_oid(stmt->extname, true);
		if (OidIsValid(extension) && se_extension_ownercheck(extension, GetUserId()))
			return MyDatabaseId;
		return InvalidOid;
	}

	name = database_to_stop(parsetree);
	if (name != NULL)
	{
		Oid			database = get_database_oid(name, true);

		/* only as a template may it be the session's own */
		if (OidIsValid(database) &&
			(database != MyDatabaseId || IsA(parsetree, CreatedbStmt)) &&
			se_database_ownercheck(database, GetUserId()))
			return database;
	}
	return InvalidOid;
}

/* Refuse to rename or move what workers and views know by its name. */
static void
keep_names(Node *parsetree)
{
	RangeVar   *name = NULL;
	Oid			extension;

	if (creating_extension)
		return;
	if (IsA(parsetree, RenameStmt))
	{
		RenameStmt *stmt = castNode(RenameStmt, parsetree);

		name = stmt->relation;
		if (stmt->renameType != OBJECT_SCHEMA && name == NULL)
			return;
	}
	else if (IsA(parsetree, AlterObjectSchemaStmt))
		name = castNode(AlterObjectSchemaStmt, parsetree)->relation;
	else
		return;

	extension = get_extension_oid(SE_EXTENSION_NAME, true);
	if (!OidIsValid(extension))
		return;
	if (name != NULL)
	{
		Oid			relation = RangeVarGetRelid(name, NoLock, true);

		if (OidIsValid(relation) &&
			getExtensionOfObject(RelationRelationId, relation) == extension)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("relation \"%s\" keeps its name, schema and columns because extension \"%s\" requires it",
							name->relname, SE_EXTENSION_NAME)));
	}
	else if (IsA(parsetree, RenameStmt))
	{
		const char *subname = castNode(RenameStmt, parsetree)->subname;
		Oid			schema = get_namespace_oid(subname, true);

		if (OidIsValid(schema) &&
			getExtensionOfObject(NamespaceRelationId, schema) == extension)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("schema \"%s\" keeps its name because extension \"%s\" requires it",
							subname, SE_EXTENSION_NAME)));
	}
}

/* Workers that have to look again after the command. */
static void
wake_after(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
			se_wake_launcher_at_commit();
			break;
		case T_AlterExtensionStmt:
			if (strcmp(castNode(AlterExtensionStmt, parsetree)->extname,
					   SE_EXTENSION_NAME) == 0)
				se_wake_at_commit();
			break;
		case T_DropOwnedStmt:
			se_wake_running_at_commit();
			break;
		case T_TransactionStmt:
			if (castNode(TransactionStmt, parsetree)->kind == TRANS_STMT_COMMIT_PREPARED)
				se_wake_after_prepared();
			break;
		case T_DropStmt:
			switch (castNode(DropStmt, parsetree)->removeType)
			{
				case OBJECT_EXTENSION:
				case OBJECT_FDW:
				case OBJECT_FOREIGN_SERVER:
				case OBJECT_FOREIGN_TABLE:
				case OBJECT_SCHEMA:
				case OBJECT_TYPE:
				case OBJECT_DOMAIN:
				case OBJECT_VIEW:
					se_wake_running_at_commit();
					break;
				default:
					break;
			}
			break;
		default:
			break;
	}
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *queryEnv,
			DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
							dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
								dest, qc);
}

/* Run a command while the workers of a database are stopped. */
static void
run_without_workers(const Oid database, PlannedStmt *pstmt, const char *queryString,
					bool readOnlyTree, ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	PG_TRY();
	{
		(void) se_stop_database(database, STOP_TIMEOUT_MS);
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_CATCH();
	{
		se_resume_database(database);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
stream_engine_ProcessUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
							 ProcessUtilityContext context, ParamListInfo params,
							 QueryEnvironment *queryEnv, DestReceiver *dest,
							 QueryCompletion *qc)
{
	Node	   *parsetree = pstmt->utilityStmt;
	Oid			database;

	if (se_shared == NULL)
	{
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		return;
	}

	keep_names(parsetree);
	database = workers_to_stop(parsetree);
	if (OidIsValid(database))
		run_without_workers(database, pstmt, queryString, readOnlyTree, context, params,
							queryEnv, dest, qc);
	else
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	wake_after(parsetree);
}

void
se_hooks_init(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = stream_engine_ProcessUtility;
}
