/*
 * json_path.h
 *	  The paths that a JSON scanner looks for, as a trie.
 *
 * NOTES
 *	  Private to the scanner: json_path.c builds the trie, json_core.cpp walks
 *	  records along it.  Nodes are numbered; the root, the record itself, is 0.
 *	  A node's named children are in an open-addressing table keyed by length and
 *	  first eight bytes: members of real records mostly differ there, so that one
 *	  load and one comparison settle a member, declared or not.
 */
#ifndef SE_JSON_PATH_H
#define SE_JSON_PATH_H

#include <string.h>

#include "json_core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct SeJsonMember
{
	uint64_t	head;			/* first eight bytes, zero padded */
	char	   *name;
	int32_t		len;
	int32_t		node;			/* 0: free entry of the table */
} SeJsonMember;

typedef struct SeJsonElement
{
	int64_t		index;
	int32_t		node;
} SeJsonElement;

typedef struct SeJsonNode
{
	int32_t		slot;			/* -1: no path ends here */
	int32_t		first_below;	/* nodes of the subtree without its root, */
	int32_t		end_below;		/* in the order of "preorder" */
	int32_t		nmembers;
	int32_t		nelements;
	uint32_t	table_mask;		/* size of table - 1 */
	uint64_t	lengths;		/* bit min(length, 63) of each member */
	SeJsonMember *members;
	SeJsonMember *table;
	SeJsonElement *elements;
	uint32_t	seen;			/* record in which the walk met this node last */
} SeJsonNode;

typedef struct SeJsonTrie
{
	SeJsonNode *nodes;
	int32_t		nnodes;
	int32_t		nslots;
	int32_t    *preorder;		/* node numbers */
	uint64_t	masks[9];		/* [n]: the first n bytes of a word */
} SeJsonTrie;

extern bool se_trie_init(SeJsonTrie *trie);
extern void se_trie_free(SeJsonTrie *trie);
extern int	se_trie_add_path(SeJsonTrie *trie, const char *path, const char **message,
							 int *position);
extern int	se_trie_add_member(SeJsonTrie *trie, const char *name);

/* Build the tables; to be called once, when all paths are there. */
extern bool se_trie_compile(SeJsonTrie *trie);

static inline uint32_t
se_trie_hash(uint64_t head, int32_t len)
{
	return (uint32_t) (((head ^ (uint64_t) len) * UINT64_C(0x9E3779B97F4A7C15)) >> 32);
}

/* The child of "node" for a member; NULL if there is none.  "name" is padded. */
static inline SeJsonNode *
se_trie_member(const SeJsonTrie *trie, const SeJsonNode *node, const char *name, int32_t len)
{
	uint64_t	head;

	if ((node->lengths >> (len < 63 ? len : 63) & 1) == 0)
		return NULL;
	memcpy(&head, name, sizeof(head));
	head &= trie->masks[len < 8 ? len : 8];
	for (uint32_t at = se_trie_hash(head, len);; at++)
	{
		const SeJsonMember *member = &node->table[at & node->table_mask];

		if (member->node == 0)
			return NULL;
		if (member->head == head && member->len == len &&
			(len <= 8 || memcmp(member->name + 8, name + 8, len - 8) == 0))
			return &trie->nodes[member->node];
	}
}

static inline SeJsonNode *
se_trie_element(const SeJsonTrie *trie, const SeJsonNode *node, int64_t index)
{
	for (int32_t i = 0; i < node->nelements; i++)
	{
		if (node->elements[i].index == index)
			return &trie->nodes[node->elements[i].node];
	}
	return NULL;
}

#ifdef __cplusplus
}
#endif

#endif							/* SE_JSON_PATH_H */
