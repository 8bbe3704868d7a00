/*
 * json_path.c
 *	  The paths that a JSON scanner looks for, as a trie: see json_path.h.
 *
 * NOTES
 *	  Free of PostgreSQL's headers, and of longjmp: memory is malloc'd and each
 *	  failure is reported.
 */
#include <stdlib.h>

#include "json_path.h"

static const char *const syntax_message =
	"a path is \"$\", followed by .name, ['name'] or [number]";

/* A new node, or -1 when out of memory.  Moves the array of nodes. */
static int
new_node(SeJsonTrie *trie)
{
	SeJsonNode *nodes;

	/* grow at powers of two */
	if ((trie->nnodes & (trie->nnodes - 1)) == 0)
	{
		int			capacity = trie->nnodes == 0 ? 1 : trie->nnodes * 2;

		nodes = realloc(trie->nodes, capacity * sizeof(SeJsonNode));
		if (nodes == NULL)
			return -1;
		trie->nodes = nodes;
	}
	memset(&trie->nodes[trie->nnodes], 0, sizeof(SeJsonNode));
	trie->nodes[trie->nnodes].slot = -1;
	return trie->nnodes++;
}

bool
se_trie_init(SeJsonTrie *trie)
{
	memset(trie, 0, sizeof(*trie));
	for (int i = 0; i <= 8; i++)
		memset(&trie->masks[i], 0xff, i);
	return new_node(trie) == 0;
}

void
se_trie_free(SeJsonTrie *trie)
{
	for (int i = 0; i < trie->nnodes; i++)
	{
		SeJsonNode *node = &trie->nodes[i];

		for (int j = 0; j < node->nmembers; j++)
			free(node->members[j].name);
		free(node->members);
		free(node->table);
		free(node->elements);
	}
	free(trie->nodes);
	free(trie->preorder);
	memset(trie, 0, sizeof(*trie));
}

/* The child of node "parent" for a name, made if need be; -1: out of memory. */
static int
child_member(SeJsonTrie *trie, int parent, const char *name, int len)
{
	SeJsonNode *node = &trie->nodes[parent];
	SeJsonMember *members;
	SeJsonMember *member;
	int			child;

	for (int i = 0; i < node->nmembers; i++)
	{
		if (node->members[i].len == len && memcmp(node->members[i].name, name, len) == 0)
			return node->members[i].node;
	}

	child = new_node(trie);
	if (child < 0)
		return -1;
	node = &trie->nodes[parent];
	members = realloc(node->members, (node->nmembers + 1) * sizeof(SeJsonMember));
	if (members == NULL)
		return -1;
	node->members = members;
	member = &members[node->nmembers];
	member->name = malloc(len + 1);
	if (member->name == NULL)
		return -1;
	memcpy(member->name, name, len);
	member->name[len] = '\0';
	member->len = len;
	member->node = child;
	member->head = 0;
	memcpy(&member->head, name, len < 8 ? len : 8);
	node->nmembers++;
	return child;
}

/* The same for an element of an array. */
static int
child_element(SeJsonTrie *trie, int parent, int64_t index)
{
	SeJsonNode *node = &trie->nodes[parent];
	SeJsonElement *elements;
	int			child;

	for (int i = 0; i < node->nelements; i++)
	{
		if (node->elements[i].index == index)
			return node->elements[i].node;
	}

	child = new_node(trie);
	if (child < 0)
		return -1;
	node = &trie->nodes[parent];
	elements = realloc(node->elements, (node->nelements + 1) * sizeof(SeJsonElement));
	if (elements == NULL)
		return -1;
	node->elements = elements;
	elements[node->nelements].index = index;
	elements[node->nelements].node = child;
	node->nelements++;
	return child;
}

static int
slot_of_node(SeJsonTrie *trie, int node)
{
	if (trie->nodes[node].slot < 0)
		trie->nodes[node].slot = trie->nslots++;
	return trie->nodes[node].slot;
}

int
se_trie_add_member(SeJsonTrie *trie, const char *name)
{
	int			node = child_member(trie, 0, name, (int) strlen(name));

	return node < 0 ? -1 : slot_of_node(trie, node);
}

/*
 * Read a name in quotes; *at points to the opening quote and is moved behind the
 * closing one.  The characters go to "to".  Returns their number, -1 if the
 * closing quote is missing.
 */
static int
quoted_name(const char **at, char *to)
{
	const char *from = *at;
	char		quote = *from++;
	int			len = 0;

	while (*from != quote)
	{
		if (*from == '\\')
			from++;
		if (*from == '\0')
			return -1;
		to[len++] = *from++;
	}
	*at = from + 1;
	return len;
}

int
se_trie_add_path(SeJsonTrie *trie, const char *path, const char **message, int *position)
{
	const char *at = path;
	const char *step = path;
	char	   *name = malloc(strlen(path) + 1);
	int			node = 0;
	int			depth = 0;

	*message = NULL;
	*position = 0;
	if (name == NULL)
		return -1;
	if (*at++ != '$')
		goto syntax;

	while (*at != '\0')
	{
		step = at;
		if (++depth > SE_JSON_MAX_DEPTH)
			goto syntax;
		if (at[0] == '.' && at[1] == '"')
		{
			int			len;

			at++;
			len = quoted_name(&at, name);
			if (len < 0)
				goto syntax;
			node = child_member(trie, node, name, len);
		}
		else if (at[0] == '.')
		{
			/* what has a meaning in other path languages must be quoted */
			int			len = (int) strcspn(++at, ".[]\"'*?(), \t\r\n");

			if (len == 0)
				goto syntax;
			node = child_member(trie, node, at, len);
			at += len;
		}
		else if (at[0] == '[' && (at[1] == '\'' || at[1] == '"'))
		{
			int			len;

			at++;
			len = quoted_name(&at, name);
			if (len < 0 || *at++ != ']')
				goto syntax;
			node = child_member(trie, node, name, len);
		}
		else if (at[0] == '[' && at[1] >= '0' && at[1] <= '9')
		{
			int64_t		index = 0;

			for (at++; *at >= '0' && *at <= '9'; at++)
			{
				index = index * 10 + (*at - '0');
				if (index > INT32_MAX)
					goto syntax;
			}
			if (*at++ != ']')
				goto syntax;
			node = child_element(trie, node, index);
		}
		else
			goto syntax;

		if (node < 0)
		{
			free(name);
			return -1;
		}
	}

	free(name);
	return slot_of_node(trie, node);

syntax:
	free(name);
	*message = syntax_message;
	*position = (int) (step - path);
	return -1;
}

/* Number the subtree of a node in preorder; depth is bounded by the paths'. */
static void
number_subtree(SeJsonTrie *trie, int number, int32_t *next)
{
	SeJsonNode *node = &trie->nodes[number];

	trie->preorder[(*next)++] = number;
	node->first_below = *next;
	for (int i = 0; i < node->nmembers; i++)
		number_subtree(trie, node->members[i].node, next);
	for (int i = 0; i < node->nelements; i++)
		number_subtree(trie, node->elements[i].node, next);
	node->end_below = *next;
}

bool
se_trie_compile(SeJsonTrie *trie)
{
	int32_t		next = 0;

	trie->preorder = malloc(trie->nnodes * sizeof(int32_t));
	if (trie->preorder == NULL)
		return false;
	number_subtree(trie, 0, &next);

	for (int i = 0; i < trie->nnodes; i++)
	{
		SeJsonNode *node = &trie->nodes[i];
		uint32_t	size = 4;

		if (node->nmembers == 0)
			continue;
		while (size < (uint32_t) node->nmembers * 4)
			size *= 2;
		node->table = calloc(size, sizeof(SeJsonMember));
		if (node->table == NULL)
			return false;
		node->table_mask = size - 1;
		for (int j = 0; j < node->nmembers; j++)
		{
			SeJsonMember *member = &node->members[j];
			uint32_t	at = se_trie_hash(member->head, member->len);

			node->lengths |= UINT64_C(1) << (member->len < 63 ? member->len : 63);
			while (node->table[at & node->table_mask].node != 0)
				at++;
			node->table[at & node->table_mask] = *member;
		}
	}
	return true;
}
